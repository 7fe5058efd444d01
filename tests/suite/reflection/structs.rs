//! Structs and flags: one layout, one value on both sides.

use super::files::shaders;
use super::specs::{reflect, spec};
use bcnorm::kernels::{Element, KernelId};
use bcnorm::params::{
    self, ColumnSplit, Dispatch, ElementGroups, Norm, RowSplit, SampleSplit, Shape, Table,
};
use bcnorm::tables::{
    Affine, AffineBackward, Channel, GradientPair, Group, GroupGradient, Moments, Products,
    RowGradient,
};
use naga::{Expression, Literal, Module, Scalar, TypeInner};
use std::path::Path;

/// A field's type, as WGSL names its scalar.
trait Field {
    const SCALAR: Scalar;
}

impl Field for f32 {
    const SCALAR: Scalar = Scalar::F32;
}

impl Field for u32 {
    const SCALAR: Scalar = Scalar::U32;
}

fn scalar<T: Field>(_: &T) -> Scalar {
    T::SCALAR
}

/// (name, offset, scalar) of every field, and the struct's size. Does not compile where a
/// field is missing.
macro_rules! layout {
    ($name:ident { $($field:ident),* $(,)? }) => {{
        let value = $name::default();
        let $name { $($field: _,)* } = value;
        let fields = vec![$((stringify!($field), std::mem::offset_of!($name, $field), scalar(&value.$field))),*];
        (stringify!($name), fields, size_of::<$name>())
    }};
}

type StructLayout = (&'static str, Vec<(&'static str, usize, Scalar)>, usize);

fn layouts() -> Vec<StructLayout> {
    vec![
        layout!(Dispatch {
            items,
            first_item,
            first_word,
            zero
        }),
        layout!(Norm {
            flags,
            eps,
            channel_eps,
            momentum
        }),
        layout!(Shape {
            num_channels,
            num_groups,
            rows_together,
            row_len
        }),
        layout!(RowSplit {
            num_rows,
            row_len,
            parts,
            words_per_part
        }),
        layout!(ColumnSplit {
            num_samples,
            num_channels,
            row_len,
            words_per_position,
            parts,
            positions_per_part,
            num_words,
            unused
        }),
        layout!(Table {
            columns,
            channel_columns,
            entries,
            entries_per_segment
        }),
        layout!(ElementGroups {
            num_channels,
            num_groups,
            channel_len,
            words_per_group
        }),
        layout!(SampleSplit {
            num_samples,
            words_per_sample,
            parts,
            samples_per_part
        }),
        layout!(Moments {
            count,
            pivot,
            offset,
            variance
        }),
        layout!(Channel {
            mean_pivot,
            mean_offset,
            rstd,
            scale,
            scale_low,
            bias,
            weight,
            count
        }),
        layout!(Group {
            mean_pivot,
            mean_offset,
            mean_rest,
            rstd,
            weight
        }),
        layout!(Affine {
            pivot,
            offset,
            scale,
            shift
        }),
        layout!(Products {
            count,
            pivot,
            offset,
            x_mean,
            covariance
        }),
        layout!(GradientPair { bias, weight }),
        layout!(GroupGradient {
            mean_pivot,
            mean_offset,
            mean_rest,
            rstd,
            grad_pivot,
            grad_offset,
            shift,
            projection,
            rest,
            scale,
            unused,
            unused_too
        }),
        layout!(RowGradient {
            scale,
            weight,
            x_scale,
            mean
        }),
        layout!(AffineBackward {
            x_pivot,
            x_scale,
            grad_pivot,
            grad_scale,
            shift
        }),
    ]
}

/// What a struct of the WGSL is called, holds, and measures.
fn wgsl_layout(module: &Module, name: &str) -> (Vec<(String, usize, Scalar)>, usize) {
    let ty = module
        .types
        .iter()
        .find(|(_, ty)| ty.name.as_deref() == Some(name));
    let (_, ty) = ty.unwrap_or_else(|| panic!("no struct {name} in the WGSL"));
    let TypeInner::Struct { members, span } = &ty.inner else {
        panic!("{name} is no struct");
    };
    let fields = members.iter().map(|member| {
        let TypeInner::Scalar(scalar) = module.types[member.ty].inner else {
            panic!("{name}: {member:?} is no scalar");
        };
        (
            member.name.clone().unwrap_or_default(),
            member.offset as usize,
            scalar,
        )
    });
    (fields.collect(), *span as usize)
}

#[test]
fn structs_have_one_layout() {
    let (module, _) = reflect(&spec(KernelId::GroupFold));
    let layouts = layouts();
    for (name, fields, size) in &layouts {
        let (found, span) = wgsl_layout(&module, name);
        let fields: Vec<_> = fields
            .iter()
            .map(|&(f, o, s)| (f.to_owned(), o, s))
            .collect();
        assert_eq!(found, fields, "{name}");
        assert_eq!(span, *size, "{name}");
    }
    // No struct of tables.wgsl was left out, and no table of a kernel.
    let parts = ["params/blocks", "tables"]
        .map(|name| std::fs::read_to_string(shaders().join(format!("parts/{name}.wgsl"))).unwrap());
    // (Those that are stored four numbers at a time are not counted: check_array looks at them.)
    let in_files = parts
        .iter()
        .map(|text| text.matches("\nstruct ").count() - text.matches("\nstruct Stored").count());
    assert_eq!(in_files.sum::<usize>(), layouts.len());
    for &kernel in KernelId::ALL {
        for binding in kernel.kernel().bindings {
            if let Element::Struct { name, size } = binding.element {
                let (_, _, expected) = layouts.iter().find(|(n, _, _)| *n == name).unwrap();
                assert_eq!(size as usize, *expected, "{name}");
            }
        }
    }
}

/// A kernel's uniform has the members that its declaration names, one behind the other, and imports the file that
/// declares it; a part that reads a uniform imports one that the kernel's has all members of.
#[test]
fn uniforms_have_one_layout() {
    for &kernel in KernelId::ALL {
        let (declared, name) = (kernel.kernel(), kernel.name());
        let params = declared.params;
        let (module, _) = reflect(&spec(kernel));
        let ty = module
            .types
            .iter()
            .find(|(_, ty)| ty.name.as_deref() == Some("Params"));
        let (_, ty) = ty.unwrap_or_else(|| panic!("{name} has no uniform"));
        let TypeInner::Struct { members, span } = &ty.inner else {
            panic!("{name}: Params is no struct");
        };
        let mut offset = 0;
        assert_eq!(members.len(), params.members.len(), "{name}");
        for (member, &(known, size)) in members.iter().zip(params.members) {
            let found = (member.name.as_deref(), member.offset as usize);
            assert_eq!(found, (Some(known), offset), "{name}");
            offset += size;
        }
        assert_eq!(offset as u64, params.size, "{name}");
        assert_eq!(u64::from(*span), params.size, "{name}");
        let import = format!("// #import params/{}\n", params.file);
        assert!(declared.text.contains(&import), "{name}: no {import}");
    }
}

#[test]
fn flags_have_one_value() {
    let (module, _) = reflect(&spec(KernelId::ChannelFold));
    let constant = |name: &str| {
        let found = module
            .constants
            .iter()
            .find(|(_, c)| c.name.as_deref() == Some(name));
        let (_, constant) = found.unwrap_or_else(|| panic!("no constant {name} in the WGSL"));
        match module.global_expressions[constant.init] {
            Expression::Literal(Literal::U32(value)) => value,
            ref other => panic!("{name} is {other:?}"),
        }
    };
    let flags = [
        ("TRAINING", params::TRAINING),
        ("ESTIMATE", params::ESTIMATE),
        ("CUMULATIVE", params::CUMULATIVE),
        ("ACCUMULATE_PARAMETERS", params::ACCUMULATE),
        ("PER_CHANNEL", params::PER_CHANNEL),
        ("UNBIASED", params::UNBIASED),
        ("SUMS", params::SUMS),
    ];
    for (name, value) in flags {
        assert_eq!(constant(name), value, "{name}");
    }
    let all = flags.iter().fold(0, |all, (_, flag)| all | flag);
    assert_eq!(all.count_ones(), 7, "the flags share bits");
    // No flag of either side was left out.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (file, opening) in [
        ("src/params.rs", ": u32 = "),
        ("shaders/parts/params/blocks.wgsl", "\nconst "),
    ] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!(text.matches(opening).count(), flags.len(), "{file}");
    }
}
