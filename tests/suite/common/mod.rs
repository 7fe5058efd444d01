//! What the integration tests share. Each test file uses some of it.
#![allow(dead_code, missing_docs, unused_imports)]

pub mod adapters;
pub mod by_hand;
pub mod conditioning;
pub mod imprecise;
pub mod rig;
pub mod steps;
pub mod targets;
pub mod uniformity;
pub mod watch;
pub mod work;

pub use bcnorm_testkit::{compare, golden, problem, random, restrict, run};

/// Tests of each type, by functions that take one.
macro_rules! of_each_type {
    ($($check:ident)*) => {$(
        mod $check {
            #[test]
            fn in_f32() {
                super::$check(bcnorm::DType::F32);
            }

            #[test]
            fn in_f16() {
                super::$check(bcnorm::DType::F16);
            }

            #[test]
            fn in_bf16() {
                super::$check(bcnorm::DType::BF16);
            }
        }
    )*};
}
pub(crate) use of_each_type;
