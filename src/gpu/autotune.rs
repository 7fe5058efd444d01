//! A measured search for a better [`Tuning`], for those who ask for it: nothing in the library calls it.
//! It submits, waits and reads back, like the other helpers.

use super::{Bindings, BoundPlan, Pipelines, device, transfer};
use crate::desc::{DType, Mode, NormDesc, TensorDesc};
use crate::error::Error;
use crate::kernels::Access;
use crate::plan::{BackwardOptions, ForwardOptions, Plan};
use crate::role::{Role, RoleKind};
use crate::tuning::Tuning;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What is searched, one field after the other, by halves and doubles. Fields that bound loops, rounding or
/// bindings are left as they are.
const FIELDS: [&str; 14] = [
    "reduction.workgroup_size",
    "reduction.lanes",
    "map.workgroup_size",
    "map.lanes",
    "limits.subgroup_size",
    "reduction.words_per_lane",
    "reduction.min_words_per_lane",
    "map.words_per_lane",
    "parts.min_invocations",
    "fold.workgroup_size",
    "fold.lanes",
    "fold.entries_per_lane",
    "columns.workgroup_size",
    "columns.tile",
];

/// A candidate must take at most this share of the best one's time, over all work,
const CLEARLY_FASTER: f64 = 0.97;

/// and none of the work may take more than this.
const NOT_SLOWER: f64 = 1.05;

/// NaN in every type, as f32 and as two of 16 bits.
const POISON: u32 = 0x7fc0_7fc0;

/// How much to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Effort {
    /// How long a submission should take: work is repeated in it until then.
    pub submission: Duration,
    /// Submissions of each contender, in turn, whose median counts.
    pub rounds: u32,
    /// How often to go over all fields, at most: it ends when a pass changes nothing.
    pub passes: u32,
    /// After how long no further candidate is tried; what was found until then counts.
    pub limit: Option<Duration>,
}

impl Effort {
    /// Sets how long a submission should take.
    #[must_use]
    pub const fn with_submission(mut self, submission: Duration) -> Self {
        self.submission = submission;
        self
    }

    /// Sets how many submissions of each contender there are.
    #[must_use]
    pub const fn with_rounds(mut self, rounds: u32) -> Self {
        self.rounds = rounds;
        self
    }

    /// Sets how often to go over all fields.
    #[must_use]
    pub const fn with_passes(mut self, passes: u32) -> Self {
        self.passes = passes;
        self
    }

    /// Sets after how long no further candidate is tried.
    #[must_use]
    pub const fn with_limit(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit;
        self
    }
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            submission: Duration::from_millis(20),
            rounds: 7,
            passes: 2,
            limit: None,
        }
    }
}

/// What came of a candidate.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// Clearly faster: it is the best from then on. Its time over the best one's so far.
    Faster(f64),
    /// Not clearly faster, or slower in some of the work.
    NotFaster(f64),
    /// The planner, the device or the driver refused it.
    Refused(Error),
    /// It ran, but its results are not the default plan's: it was not timed.
    Wrong(Role),
}

/// One candidate.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Trial {
    /// What was changed of the best tuning so far.
    pub setting: String,
    /// What came of it.
    pub verdict: Verdict,
}

/// The tuning found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Tuned {
    /// The best one; the adapter's default where nothing is clearly faster.
    pub tuning: Tuning,
    /// Its time over the default's, forward and backward, of each work item: both measured again in turn at
    /// the end.
    pub ratios: Vec<[f64; 2]>,
    /// All candidates, in order.
    pub trials: Vec<Trial>,
}

/// Searches a tuning for a device by coordinate descent from [`Tuning::probed`]: each field by halves
/// and doubles, training forward and backward of each norm and tensor timed in turn with the best tuning so
/// far. A candidate counts only where its outputs are those of the default plan, within 1e-5 of the largest
/// value (16-bit tensors: within two units in the last place of it). `watch` hears of each trial.
///
/// Blocks on the device: natively only. Give tensors of the sizes that will be used, and let nothing else
/// run meanwhile.
///
/// # Errors
/// Those of planning and preparing with the default tuning, and [`Error::Device`].
pub async fn autotune(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    work: &[(NormDesc, TensorDesc)],
    effort: Effort,
    mut watch: impl FnMut(&Trial),
) -> Result<Tuned, Error> {
    let begin = Instant::now();
    let in_time = || effort.limit.is_none_or(|limit| begin.elapsed() < limit);
    let default = Tuning::probed(device, queue).await?;
    let pipelines = Pipelines::with_tuning(device, default);
    let mut bench = Bench {
        device,
        queue,
        pipelines,
        effort,
        subjects: Vec::new(),
    };
    for (norm, tensor) in work.iter().filter(|(_, tensor)| tensor.elements() > 0) {
        bench.add(norm, tensor, &default)?;
    }
    let first = bench.contender(&default)?;
    bench.expect_outputs(&first).await?;

    let mut tuned = Tuned {
        tuning: default,
        ratios: Vec::new(),
        trials: Vec::new(),
    };
    let mut best = bench.contender(&default)?;
    let mut tried = vec![default];
    for _ in 0..effort.passes {
        let before = tuned.tuning;
        for field in FIELDS {
            for double in [true, false] {
                // On in the same direction for as long as it pays.
                while let Some((candidate, setting)) = step(&tuned.tuning, field, double) {
                    if tried.contains(&candidate) || !in_time() {
                        break;
                    }
                    tried.push(candidate);
                    let (verdict, contender) = bench.judge(&best, &candidate).await?;
                    let Some(verdict) = verdict else {
                        // The same plans: nothing to compare.
                        break;
                    };
                    let trial = Trial { setting, verdict };
                    watch(&trial);
                    let faster = matches!(trial.verdict, Verdict::Faster(_));
                    tuned.trials.push(trial);
                    match contender.filter(|_| faster) {
                        Some(contender) => (best, tuned.tuning) = (contender, candidate),
                        None => break,
                    }
                }
            }
        }
        if tuned.tuning == before {
            break;
        }
    }
    tuned.ratios = bench.duel(&first, &best)?;
    // Step by step it was faster; only what is faster as a whole counts.
    if tuned.tuning != default && mean(&tuned.ratios) > CLEARLY_FASTER {
        tuned.tuning = default;
        tuned.ratios = vec![[1.0; 2]; tuned.ratios.len()];
    }
    Ok(tuned)
}

/// A tuning with a field doubled or halved, and that setting in words.
fn step(tuning: &Tuning, field: &str, double: bool) -> Option<(Tuning, String)> {
    let settings = tuning.settings();
    let &(_, value) = settings.iter().find(|(name, _)| *name == field)?;
    let value = match (double, field) {
        (true, _) => value * 2,
        // Through workgroup memory alone, or not.
        (false, "limits.subgroup_size") => u64::from(value > 1),
        (false, _) => value / 2,
    };
    let setting = format!("{field}={value}");
    let mut changed = *tuning;
    (value > 0 && changed.set(&setting).is_ok()).then_some((changed, setting))
}

/// Geometric mean.
fn mean(ratios: &[[f64; 2]]) -> f64 {
    let all = ratios.as_flattened();
    let logs: f64 = all.iter().map(|ratio| ratio.ln()).sum();
    (logs / all.len().max(1) as f64).exp()
}

/// A norm and a tensor, with buffers for them.
struct Subject {
    norm: NormDesc,
    tensor: TensorDesc,
    buffers: BTreeMap<Role, wgpu::Buffer>,
    /// What is written, and what is there before: poison, or the state that a step goes on from.
    written: Vec<(Role, u32)>,
    expected: Vec<(Role, Vec<f32>)>,
}

/// A tuning's plans, bound: forward and backward of each subject.
struct Contender {
    plans: Vec<[Plan; 2]>,
    bound: Vec<[BoundPlan; 2]>,
}

struct Bench<'a> {
    device: &'a wgpu::Device,
    queue: &'a wgpu::Queue,
    pipelines: Pipelines,
    effort: Effort,
    subjects: Vec<Subject>,
}

impl Bench<'_> {
    fn add(&mut self, norm: &NormDesc, tensor: &TensorDesc, tuning: &Tuning) -> Result<(), Error> {
        let mut random = 0x0bc0_0921u64;
        let mut buffers = BTreeMap::new();
        let mut written = Vec::new();
        for plan in plans(norm, tensor, tuning)? {
            for need in plan.needs().iter() {
                let role = need.role;
                if role.kind() != RoleKind::Caller {
                    continue;
                }
                let before = match role {
                    Role::RunningMean | Role::NumBatchesTracked => 0,
                    Role::RunningVar => 1f32.to_bits(),
                    _ => POISON,
                };
                if need.access == Access::ReadWrite && written.iter().all(|(r, _)| *r != role) {
                    written.push((role, before));
                }
                if buffers.contains_key(&role) {
                    continue;
                }
                transfer::check_size(self.device, role.name(), need.bytes)?;
                let mut values = |len: u64| (0..len).map(|_| draw(&mut random)).collect();
                let upload = |dtype, values: Vec<f32>| {
                    transfer::upload_as(self.device, role.name(), dtype, &values)
                };
                let buffer = match role {
                    Role::X | Role::GradY => upload(tensor.dtype(), values(tensor.elements())),
                    _ if role.is_tensor() => transfer::zeroed(self.device, role.name(), need.bytes),
                    _ => upload(DType::F32, vec![1.0; (need.bytes / 4) as usize]),
                }?;
                buffers.insert(role, buffer);
            }
        }
        self.subjects.push(Subject {
            norm: *norm,
            tensor: tensor.clone(),
            buffers,
            written,
            expected: Vec::new(),
        });
        Ok(())
    }

    /// Plans, compiles and binds a tuning.
    fn contender(&self, tuning: &Tuning) -> Result<Contender, Error> {
        let mut contender = Contender {
            plans: Vec::new(),
            bound: Vec::new(),
        };
        for subject in &self.subjects {
            let [forward, backward] = plans(&subject.norm, &subject.tensor, tuning)?;
            contender.plans.push([forward.clone(), backward.clone()]);
            let forward = self.pipelines.prepare(forward)?;
            let backward = self.pipelines.prepare(backward)?;
            let tables = backward.create_tables(Some(&forward.create_tables(None)?))?;
            let bind = |bindings: Bindings, (&role, buffer)| bindings.with(role, buffer);
            let buffers = subject.buffers.iter();
            let bindings = buffers.fold(Bindings::new().with_tables(&tables), bind);
            let bound = [forward.bind(&bindings)?, backward.bind(&bindings)?];
            contender.bound.push(bound);
        }
        Ok(contender)
    }

    /// Takes a contender's outputs for what all others must yield.
    async fn expect_outputs(&mut self, contender: &Contender) -> Result<(), Error> {
        for index in 0..self.subjects.len() {
            self.subjects[index].expected = self.outputs(contender, index).await?;
        }
        Ok(())
    }

    /// What a contender makes of a subject, from the same state each time.
    async fn outputs(
        &self,
        contender: &Contender,
        index: usize,
    ) -> Result<Vec<(Role, Vec<f32>)>, Error> {
        let subject = &self.subjects[index];
        for (role, before) in &subject.written {
            let buffer = &subject.buffers[role];
            let words = vec![*before; (buffer.size() / 4) as usize];
            let bytes = bytemuck::cast_slice(&words);
            self.queue.write_buffer(buffer, 0, bytes);
        }
        let mut encoder = self.device.create_command_encoder(&Default::default());
        for bound in &contender.bound[index] {
            bound.encode(&mut encoder);
        }
        self.queue.submit([encoder.finish()]);
        let mut outputs = Vec::new();
        for &(role, _) in subject.written.iter() {
            let buffer = &subject.buffers[&role];
            let (dtype, len) = match role {
                // Counted, not computed.
                Role::NumBatchesTracked => continue,
                _ if role.is_tensor() => (subject.tensor.dtype(), subject.tensor.elements()),
                _ => (DType::F32, buffer.size() / 4),
            };
            let (device, queue) = (self.device, self.queue);
            let values = transfer::read_as(device, queue, buffer, 0, len as usize, dtype).await?;
            outputs.push((role, values));
        }
        Ok(outputs)
    }

    /// Checks a candidate and times it against the best. No verdict where its plans are the best's.
    async fn judge(
        &self,
        best: &Contender,
        candidate: &Tuning,
    ) -> Result<(Option<Verdict>, Option<Contender>), Error> {
        let contender = match self.contender(candidate) {
            Ok(contender) => contender,
            // No candidate's fault.
            Err(error) if device::is_lost(self.device) => return Err(error),
            Err(error) => return Ok((Some(Verdict::Refused(error)), None)),
        };
        if contender.plans == best.plans {
            return Ok((None, None));
        }
        for index in 0..self.subjects.len() {
            let got = self.outputs(&contender, index).await?;
            if let Some(role) = differs(&self.subjects[index], &got) {
                return Ok((Some(Verdict::Wrong(role)), None));
            }
        }
        let ratios = self.duel(best, &contender)?;
        let worst = ratios.as_flattened().iter().copied().fold(0.0, f64::max);
        let ratio = mean(&ratios);
        let verdict = match ratio <= CLEARLY_FASTER && worst <= NOT_SLOWER {
            true => Verdict::Faster(ratio),
            false => Verdict::NotFaster(ratio),
        };
        Ok((Some(verdict), Some(contender)))
    }

    /// Times two contenders in turn: the second's medians over the first's.
    fn duel(&self, first: &Contender, second: &Contender) -> Result<Vec<[f64; 2]>, Error> {
        let ratio = |index: usize, way: usize| -> Result<f64, Error> {
            let pair = [&first.bound[index][way], &second.bound[index][way]];
            // Backward reads what forward saved.
            for contender in [first, second] {
                self.time(&contender.bound[index][0], 1)?;
            }
            let repeats = self.repeats(pair[0])?;
            let mut samples = [Vec::new(), Vec::new()];
            for _ in 0..self.effort.rounds.max(1) {
                for (bound, samples) in pair.iter().zip(&mut samples) {
                    samples.push(self.time(bound, repeats)?);
                }
            }
            let [first, second] = samples.map(median);
            Ok(second / first.max(1e-12))
        };
        let indices = 0..self.subjects.len();
        indices
            .map(|index| Ok([ratio(index, 0)?, ratio(index, 1)?]))
            .collect()
    }

    /// How often a submission repeats a plan.
    fn repeats(&self, bound: &BoundPlan) -> Result<u32, Error> {
        let target = self.effort.submission.as_secs_f64();
        let mut repeats = 1;
        loop {
            let seconds = self.time(bound, repeats)?;
            if seconds >= 0.7 * target || repeats >= 1024 {
                return Ok(repeats);
            }
            let factor = (target / seconds.max(1e-6)).clamp(1.5, 16.0);
            repeats = (f64::from(repeats) * factor).ceil() as u32;
        }
    }

    /// Seconds that a submission of some repetitions takes.
    fn time(&self, bound: &BoundPlan, repeats: u32) -> Result<f64, Error> {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for _ in 0..repeats {
            bound.encode(&mut pass);
        }
        drop(pass);
        let commands = encoder.finish();
        let start = Instant::now();
        self.queue.submit([commands]);
        self.device
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|error| device::failed("a measurement", error))?;
        let seconds = start.elapsed().as_secs_f64();
        // It did nothing then.
        if device::is_lost(self.device) {
            return Err(device::lost("a measurement"));
        }
        Ok(seconds)
    }
}

fn plans(norm: &NormDesc, tensor: &TensorDesc, tuning: &Tuning) -> Result<[Plan; 2], Error> {
    let (forward, backward) = (ForwardOptions::default(), BackwardOptions::default());
    Ok([
        Plan::forward(norm, tensor, Mode::Train, forward, tuning)?,
        Plan::backward(norm, tensor, Mode::Train, backward, tuning)?,
    ])
}

/// The first output that is not what is expected of it. A NaN is not, nor what was not written.
fn differs(subject: &Subject, got: &[(Role, Vec<f32>)]) -> Option<Role> {
    let pairs = subject.expected.iter().zip(got);
    let mut wrong = pairs.filter(|((role, expected), (_, got))| {
        let tolerance = match subject.tensor.dtype() {
            DType::F16 if role.is_tensor() => 2f32.powi(-9),
            DType::BF16 if role.is_tensor() => 2f32.powi(-6),
            _ => 1e-5,
        };
        let scale = expected.iter().fold(0f32, |most, v| most.max(v.abs()));
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= tolerance * scale;
        expected.len() != got.len() || !expected.iter().zip(got).all(close)
    });
    wrong.next().map(|((role, _), _)| *role)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(0.0)
}

/// Nearly normal about 0.5 (SplitMix64, the sum of four uniform numbers).
fn draw(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (0..4).map(|i| (z >> (16 * i) & 0xffff) as f32).sum::<f32>() / 65_536.0 - 1.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_there_and_step() {
        for field in FIELDS {
            for tuning in [Tuning::GPU, Tuning::SOFTWARE] {
                let (doubled, _) = step(&tuning, field, true).unwrap();
                assert_ne!(doubled, tuning, "{field}");
                assert_eq!(step(&doubled, field, false).unwrap().0, tuning, "{field}");
            }
        }
        assert_eq!(step(&Tuning::SOFTWARE, "fold.lanes", false), None);
        assert_eq!(step(&Tuning::GPU, "nothing", true), None);
    }

    #[test]
    fn wrong_results_differ() {
        let tensor = TensorDesc::new(&[1, 2, 2]).unwrap();
        let mut subject = Subject {
            norm: NormDesc::batch_norm(2),
            tensor: tensor.clone(),
            buffers: BTreeMap::new(),
            written: Vec::new(),
            expected: vec![(Role::Y, vec![1.0, -4.0, 2.0, 0.0])],
        };
        let y = |values: [f32; 4]| vec![(Role::Y, values.to_vec())];
        assert_eq!(differs(&subject, &y([1.00003, -4.0, 2.0, 3e-5])), None);
        for wrong in [5e-5, f32::NAN, f32::from_bits(POISON), f32::INFINITY] {
            assert_eq!(
                differs(&subject, &y([1.0, -4.0, 2.0, wrong])),
                Some(Role::Y)
            );
        }
        assert_eq!(differs(&subject, &[(Role::Y, vec![1.0])]), Some(Role::Y));
        subject.tensor = tensor.with_dtype(DType::BF16);
        assert_eq!(differs(&subject, &y([1.03, -4.0, 2.0, 0.0])), None);
        assert_eq!(differs(&subject, &y([1.1, -4.0, 2.0, 0.0])), Some(Role::Y));
    }

    #[test]
    fn means_and_medians() {
        assert!((mean(&[[2.0, 0.5], [1.0, 1.0]]) - 1.0).abs() < 1e-12);
        assert_eq!(mean(&[]), 1.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
