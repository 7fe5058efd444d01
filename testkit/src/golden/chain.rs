//! The paper's combination, y = BCNorm(conv2d(x, WS(w))): Weight Standardization and BCNorm by the
//! library, the convolution between them here, in f64.

use super::reader::{Reader, bar};
use crate::names::{gradient_or_state, output_name, parameters};
use crate::outputs::Run;
use crate::problem::Problem;
use bcnorm::{DType, Layout, Mode, NormDesc, NormKind, Role};
use std::collections::BTreeMap;
use std::path::Path;

/// What golden files call it.
pub const NORM: &str = "ws_conv_bc_norm";

/// Whether a golden file's name says that it holds a chain.
pub(super) fn is_named(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(&format!("{NORM}."))
}

/// A chain's data, and what must come of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// The file's name without its end.
    pub name: String,
    /// BCNorm, for the O channels that the convolution yields. Its `x` is empty.
    problem: Problem,
    convolution: Convolution,
    /// (N, I, H, W).
    input: Vec<f32>,
    /// (O, I, 3, 3).
    filters: Vec<f32>,
    /// What comes out, by name; parts of the way included.
    pub expected: BTreeMap<String, Vec<f64>>,
    /// What an error is divided by.
    pub scale: BTreeMap<String, f64>,
    /// PyTorch's own error in f32.
    pub pytorch_f32_error: BTreeMap<String, f64>,
}

/// A convolution with filters of 3 x 3, stride 1 and a border of zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Convolution {
    samples: usize,
    inputs: usize,
    outputs: usize,
    height: usize,
    width: usize,
}

impl Convolution {
    /// Calls `each` with the indices in input, filters and output of every product.
    fn each(&self, mut each: impl FnMut(usize, usize, usize)) {
        let &Self {
            samples,
            inputs,
            outputs,
            height,
            width,
        } = self;
        for n in 0..samples {
            for o in 0..outputs {
                for i in 0..inputs {
                    for tap in 0..9 {
                        let (dy, dx) = (tap / 3, tap % 3);
                        // Row y + dy - 1 of the input, where there is one.
                        for y in (1 - dy.min(1))..(height + 1 - dy).min(height) {
                            for x in (1 - dx.min(1))..(width + 1 - dx).min(width) {
                                let (from_y, from_x) = (y + dy - 1, x + dx - 1);
                                each(
                                    ((n * inputs + i) * height + from_y) * width + from_x,
                                    (o * inputs + i) * 9 + tap,
                                    ((n * outputs + o) * height + y) * width + x,
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    fn forward(&self, input: &[f32], filters: &[f32]) -> Vec<f32> {
        let mut output = vec![0f64; self.samples * self.outputs * self.height * self.width];
        self.each(|i, f, o| output[o] += f64::from(input[i]) * f64::from(filters[f]));
        single(&output)
    }

    /// The gradients of input and filters.
    fn backward(&self, input: &[f32], filters: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let mut grad_input = vec![0f64; input.len()];
        let mut grad_filters = vec![0f64; filters.len()];
        self.each(|i, f, o| {
            grad_input[i] += f64::from(filters[f]) * f64::from(grad[o]);
            grad_filters[f] += f64::from(input[i]) * f64::from(grad[o]);
        });
        (single(&grad_input), single(&grad_filters))
    }
}

fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

impl Chain {
    /// BCNorm's description.
    pub fn norm(&self) -> &NormDesc {
        &self.problem.norm
    }

    /// The largest error that passes: 1e-6, or PyTorch's own where that is larger.
    pub fn bar(&self, name: &str) -> f64 {
        bar(&self.pytorch_f32_error, name)
    }

    /// Batches tracked after the call.
    pub fn num_batches_tracked_after(&self) -> u32 {
        self.problem.num_batches_tracked_after()
    }

    /// Forward and backward. `run` computes the two norms, with the tensors in `layout`.
    ///
    /// # Errors
    /// Those of `run`.
    pub fn run<E>(
        &self,
        layout: Layout,
        mut run: impl FnMut(&Problem) -> Result<Run, E>,
    ) -> Result<Run, E> {
        let convolution = &self.convolution;
        let standardization = self.standardization().with_layout(layout);
        let standardized = run(&standardization)?;
        let filters = standardized.get("y");

        let mut norm = self.problem.clone().with_layout(layout);
        norm.x = convolution.forward(&self.input, filters);
        let mut all = run(&norm)?;
        let grad_output = all.outputs.remove("grad_x").unwrap_or_default();
        let (grad_input, grad_standardized) =
            convolution.backward(&self.input, filters, &grad_output);

        let back = run(&standardization.with_grad_y(grad_standardized.clone()))?;
        all.outputs.extend([
            ("conv.standardized", filters.to_vec()),
            ("conv.output", norm.x),
            ("grad_conv.output", grad_output),
            ("grad_conv.input", grad_input),
            ("grad_conv.standardized", grad_standardized),
            ("grad_conv.weight", back.get("grad_x").to_vec()),
        ]);
        Ok(all)
    }

    /// Weight Standardization of the filters, forward.
    fn standardization(&self) -> Problem {
        let norm = NormDesc::weight_standardization();
        let Convolution {
            inputs, outputs, ..
        } = self.convolution;
        Problem::new(norm, &[outputs, 1, inputs, 3, 3], self.filters.clone())
    }
}

impl Reader<'_> {
    pub(super) fn chain(&mut self) -> Option<Chain> {
        let shape = self.shape_of("conv.input");
        let filters = self.shape_of("conv.weight");
        let settings_of = |reader: &mut Self| {
            let channels = reader.number("channels", |text| text.parse().ok())?;
            reader.settings(NormKind::BcNorm, channels)
        };
        let settings = settings_of(self);
        for key in ["stride", "padding"] {
            self.number(key, |text| (text == "1").then_some(()));
        }
        for (key, only) in [
            ("dtype", "f32"),
            ("layout", "channels_first"),
            ("activation", "none"),
            ("residual", "false"),
        ] {
            self.number(key, |text| (text == only).then_some(()));
        }
        let (settings, shape, filters) = (settings?, shape?, filters?);
        let norm = settings.norm;
        let (&[samples, inputs, height, width], &[outputs, filter_inputs, 3, 3]) =
            (&shape[..], &filters[..])
        else {
            self.problems.push(format!(
                "the convolution of {shape:?} with {filters:?} is not of 3 x 3"
            ));
            return None;
        };
        if filter_inputs != inputs || outputs != norm.num_channels {
            self.problems.push(format!(
                "{shape:?}, {filters:?} and {} channels do not fit",
                norm.num_channels
            ));
            return None;
        }
        let convolution = Convolution {
            samples,
            inputs,
            outputs,
            height,
            width,
        };
        let elements = samples * outputs * height * width;
        let input = self.floats("conv.input", DType::F32, shape.iter().product());
        let weight = self.floats("conv.weight", DType::F32, filters.iter().product());
        let grad_y = self.floats("grad_y", DType::F32, elements);
        let name = self.number("name", |text| Some(text.to_owned()));

        let mut problem = Problem {
            mode: if settings.training {
                Mode::Train
            } else {
                Mode::Eval
            },
            num_batches_tracked: settings.num_batches_tracked,
            ..Problem::new(norm, &[samples, outputs, height, width], Vec::new())
        };
        problem = problem.with_grad_y(grad_y?);
        let mut outputs = vec![
            ("y", elements),
            ("conv.standardized", filters.iter().product()),
            ("conv.output", elements),
            ("grad_conv.output", elements),
            ("grad_conv.standardized", filters.iter().product()),
            ("grad_conv.weight", filters.iter().product()),
            ("grad_conv.input", shape.iter().product()),
        ];
        for (role, len) in parameters(&norm) {
            let values = self
                .floats(role.name(), DType::F32, len)
                .unwrap_or_default();
            let field = match role {
                Role::BnWeight => &mut problem.bn_weight,
                Role::BnBias => &mut problem.bn_bias,
                Role::Weight => &mut problem.weight,
                Role::Bias => &mut problem.bias,
                Role::RunningMean => &mut problem.running_mean,
                _ => &mut problem.running_var,
            };
            *field = values;
            let output = gradient_or_state(role);
            outputs.extend(output_name(&norm, output).map(|name| (name, len)));
        }
        let expectations = self.expectations(outputs, DType::F32);
        Some(Chain {
            name: name?,
            problem,
            convolution,
            input: input?,
            filters: weight?,
            expected: expectations.expected,
            scale: expectations.scale,
            pytorch_f32_error: expectations.pytorch_f32_error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::judge;
    use crate::golden::{self, File};
    use crate::random::Random;
    use crate::run;
    use bcnorm::cpu::Executor;

    const SMALL: Convolution = Convolution {
        samples: 2,
        inputs: 3,
        outputs: 4,
        height: 5,
        width: 2,
    };

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        assert_eq!(a.len(), b.len());
        let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
        products.sum()
    }

    #[test]
    fn a_convolution_moves_and_adds() {
        let one = Convolution {
            samples: 1,
            inputs: 1,
            outputs: 1,
            height: 2,
            width: 3,
        };
        let input = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let filter = |tap: usize| {
            let mut filter = [0.0; 9];
            filter[tap] = 1.0;
            filter
        };
        // The middle tap leaves all in place, the first one moves it down and to the right.
        assert_eq!(one.forward(&input, &filter(4)), input);
        let moved = [0.0, 0.0, 0.0, 0.0, 1.0, 2.0];
        assert_eq!(one.forward(&input, &filter(0)), moved);
        let moved = [5.0, 6.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(one.forward(&input, &filter(8)), moved);
        assert_eq!(one.forward(&input, &[1.0; 9])[0], 1.0 + 2.0 + 4.0 + 5.0);
    }

    /// It is linear in either, so that a gradient is what makes these products equal.
    #[test]
    fn its_gradients_are_those_of_its_output() {
        let mut random = Random::new(3);
        let input = random.normals(2 * 3 * 10, 0.0, 1.0);
        let filters = random.normals(4 * 3 * 9, 0.0, 1.0);
        let grad = random.normals(2 * 4 * 10, 0.0, 1.0);
        let product = dot(&SMALL.forward(&input, &filters), &grad);
        let (grad_input, grad_filters) = SMALL.backward(&input, &filters, &grad);
        for other in [dot(&input, &grad_input), dot(&filters, &grad_filters)] {
            assert!((other - product).abs() < 1e-5, "{other} {product}");
        }
    }

    fn wrong(chain: &Chain, run: &Run) -> Vec<String> {
        let judged = chain.expected.iter().filter_map(|(name, values)| {
            let got = run.get(name);
            judge(
                DType::F32,
                name,
                got,
                values,
                chain.scale[name],
                chain.bar(name),
            )
            .wrong
        });
        judged.collect()
    }

    #[test]
    fn a_chain_gives_what_its_file_holds() {
        let executor = Executor::new();
        for path in golden::chain_paths() {
            let Ok(File::Chain(mut chain)) = golden::read(&path) else {
                panic!("{}", path.display());
            };
            let run = |chain: &Chain| {
                let run = |problem: &Problem| run::cpu(&executor, problem);
                chain.run(Layout::ChannelsLast, run).unwrap()
            };
            let good = run(&chain);
            assert_eq!(wrong(&chain, &good), [""; 0]);
            assert_eq!(good.outputs.len(), chain.expected.len());
            assert_eq!(good.num_batches_tracked, chain.num_batches_tracked_after());
            chain.filters.swap(0, 1);
            assert!(wrong(&chain, &run(&chain)).len() > 5);
        }
    }
}
