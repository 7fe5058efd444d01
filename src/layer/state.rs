//! State dicts in PyTorch's names. [`entries`] and [`fit`] are for layers of one's own, such as that of the
//! browser package.

use crate::desc::{ChannelStats, NormDesc, NormKind};
use crate::error::Error;
use crate::role::Role;
use std::collections::BTreeMap;

/// Values of a state dict, as PyTorch stores them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StateValue {
    /// Parameters and running statistics, with their shape.
    F32 {
        /// Shape.
        dims: Vec<usize>,
        /// Values.
        values: Vec<f32>,
    },
    /// `num_batches_tracked`, a scalar.
    I64(i64),
}

/// Parameters and buffers by the names that `torch.nn` has for them: `weight`, `bias`, `running_mean`,
/// `running_var`, `num_batches_tracked`, as far as the norm has them; BCNorm's inner norm has its own
/// under `bn.`. With [`ChannelStats::Estimate`] there is `estbn_moving_speed` as well.
pub type StateDict = BTreeMap<String, StateValue>;

/// Takes the entries of one module out of a model's dict: those below `module` (`layer1.0.bn1`, as
/// `Module.get_submodule` takes it), under the names that they have within the module. With an empty
/// path, all.
///
/// ```
/// use bcnorm::layer::{StateDict, StateValue, put_module, take_module};
///
/// let mut model = StateDict::from([
///     ("bn1.num_batches_tracked".to_owned(), StateValue::I64(7)),
///     ("bn10.num_batches_tracked".to_owned(), StateValue::I64(8)),
/// ]);
/// let bn1 = take_module(&mut model, "bn1");
/// assert_eq!(bn1["num_batches_tracked"], StateValue::I64(7));
/// assert_eq!(model.len(), 1);
///
/// put_module(&mut model, "bn1", bn1);
/// assert_eq!(model.len(), 2);
/// ```
pub fn take_module(model: &mut StateDict, module: &str) -> StateDict {
    let prefix = module_prefix(module);
    let mut part = StateDict::new();
    model.retain(|name, value| {
        let Some(name) = name.strip_prefix(&prefix) else {
            return true;
        };
        // Taken by value: what stays behind is dropped.
        let value = std::mem::replace(value, StateValue::I64(0));
        part.insert(name.to_owned(), value);
        false
    });
    part
}

/// Puts the entries of one module into a model's dict, below `module`: the reverse of [`take_module`].
/// Entries of these names are replaced.
pub fn put_module(model: &mut StateDict, module: &str, part: StateDict) {
    let prefix = module_prefix(module);
    model.extend(
        part.into_iter()
            .map(|(name, value)| (format!("{prefix}{name}"), value)),
    );
}

/// What the names of a module's entries begin with.
pub(super) fn module_prefix(module: &str) -> String {
    match module.trim_end_matches('.') {
        "" => String::new(),
        path => format!("{path}."),
    }
}

/// A parameter or running statistic of a norm: an f32 buffer of a layer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// What plans know its buffer as.
    pub role: Role,
    /// In the state dict.
    pub name: &'static str,
    /// PyTorch's shape.
    pub dims: Vec<usize>,
    /// What a new module has there.
    pub initial: f32,
    /// What plans know its gradient's buffer as, where it is a parameter.
    pub gradient: Option<Role>,
}

/// The name of a role's entry: the channel part is a module of its own in BCNorm only.
fn entry_name(norm: &NormDesc, name: &'static str) -> &'static str {
    match norm.kind {
        NormKind::BcNorm => name,
        _ => name.strip_prefix(INNER).unwrap_or(name),
    }
}

const INNER: &str = "bn.";

/// The inner norm in the authors' ImageNet checkpoints.
const INNER_ALIAS: &str = "pbn.";

/// Every f32 entry of a norm but the moving speed: the parameters first.
pub fn entries(norm: &NormDesc) -> Vec<Entry> {
    let inner = norm.kind == NormKind::BcNorm;
    let outer = norm.kind != NormKind::WeightStandardization;
    let running = norm.has_running_stats();
    let all = [
        (
            outer && norm.weight,
            Role::Weight,
            Some(Role::GradWeight),
            1.0,
        ),
        (outer && norm.bias, Role::Bias, Some(Role::GradBias), 0.0),
        (
            inner && norm.bn_weight,
            Role::BnWeight,
            Some(Role::GradBnWeight),
            1.0,
        ),
        (
            inner && norm.bn_bias,
            Role::BnBias,
            Some(Role::GradBnBias),
            0.0,
        ),
        (running, Role::RunningMean, None, 0.0),
        (running, Role::RunningVar, None, 1.0),
    ];
    let there = all.into_iter().filter(|(there, ..)| *there);
    let entries = there.map(|(_, role, gradient, initial)| Entry {
        role,
        name: entry_name(norm, role.name()),
        dims: match role {
            // As in the authors' code.
            Role::Weight | Role::Bias if inner => vec![1, norm.affine_len(), 1],
            _ => vec![norm.num_channels],
        },
        initial,
        gradient,
    });
    entries.collect()
}

/// The name of `num_batches_tracked`, if the norm has one.
pub fn batch_count(norm: &NormDesc) -> Option<&'static str> {
    norm.has_running_stats()
        .then(|| entry_name(norm, Role::NumBatchesTracked.name()))
}

/// The name and value of `estbn_moving_speed`, if the norm has one.
pub fn moving_speed(norm: &NormDesc) -> Option<(&'static str, f32)> {
    match (norm.kind, norm.stats) {
        (NormKind::EstBn | NormKind::BcNorm, ChannelStats::Estimate { moving_speed }) => {
            Some((entry_name(norm, "bn.estbn_moving_speed"), moving_speed))
        }
        _ => None,
    }
}

/// A state dict that fits a norm.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Fit<'a> {
    /// What goes into which buffer.
    pub values: Vec<(Role, &'a [f32])>,
    /// `num_batches_tracked`, where the norm has it.
    pub batch_count: Option<i64>,
    /// The norm with the dict's moving speed.
    pub norm: NormDesc,
    /// What fits, but cannot be meant, in words: variances below 0 or NaN, which make NaN of whole channels
    /// in eval. PyTorch loads them without a word, and so does a layer.
    pub warnings: Vec<String>,
}

/// Fits a state dict to a norm, strictly: every entry must be there, no other, each of the right shape, give
/// or take sizes of 1; `pbn.*` is read as `bn.*`.
///
/// # Errors
/// [`Error::StateDict`] with all that does not fit.
pub fn fit<'a>(norm: &NormDesc, state: &'a StateDict) -> Result<Fit<'a>, Error> {
    let mut dict = Dict {
        state,
        known: Vec::new(),
        problems: Vec::new(),
    };
    let inner = |prefix| state.keys().any(|name| name.starts_with(prefix));
    if norm.kind == NormKind::BcNorm && inner(INNER) && inner(INNER_ALIAS) {
        dict.problems.push(format!(
            "{INNER}* and {INNER_ALIAS}* are two names of the inner norm: keep one of them"
        ));
    }
    let mut fit = Fit {
        values: Vec::new(),
        batch_count: None,
        norm: *norm,
        warnings: Vec::new(),
    };
    for entry in entries(norm) {
        let values = dict.f32s(entry.name, &entry.dims, "");
        if entry.role == Role::RunningVar {
            let bad = |value: &&f32| value.is_nan() || **value < 0.0;
            let values = values.unwrap_or_default();
            if let Some(first) = values.iter().find(bad) {
                fit.warnings.push(format!(
                    "{}: {} of {} variances are below 0 or NaN (the first: {first}), and so the output of their \
                    channels in eval may be NaN: is the file damaged?",
                    entry.name,
                    values.iter().filter(bad).count(),
                    values.len(),
                ));
            }
        }
        fit.values.extend(values.map(|values| (entry.role, values)));
    }
    if let Some(name) = batch_count(norm) {
        fit.batch_count = dict.count(name);
    }
    if let Some((name, _)) = moving_speed(norm) {
        let hint =
            " (a norm with running estimates has it; with the batch's statistics there is none)";
        if let Some(&[moving_speed]) = dict.f32s(name, &[1], hint) {
            fit.norm.stats = ChannelStats::Estimate { moving_speed };
            if let Err(error) = fit.norm.validate() {
                dict.problems.push(error.to_string());
            }
        }
    }
    let Dict {
        known,
        mut problems,
        ..
    } = dict;
    let extra = state.keys().filter(|name| !known.contains(name));
    problems.extend(extra.map(|name| format!("unexpected key {name:?}")));
    if problems.is_empty() {
        Ok(fit)
    } else {
        Err(Error::StateDict { problems })
    }
}

/// A state dict being looked through.
struct Dict<'a> {
    state: &'a StateDict,
    /// The keys that belong to the norm.
    known: Vec<&'a String>,
    problems: Vec<String>,
}

impl<'a> Dict<'a> {
    /// The entry of a name, or of the name that the authors' checkpoints have for it.
    fn get(&mut self, name: &str, hint: &str) -> Option<(&'a String, &'a StateValue)> {
        let alias = name
            .strip_prefix(INNER)
            .map(|name| format!("{INNER_ALIAS}{name}"));
        let other = alias.and_then(|name| self.state.get_key_value(&name));
        let found = self.state.get_key_value(name);
        // Where both are there, that is a problem of its own already.
        self.known
            .extend(found.into_iter().chain(other).map(|(name, _)| name));
        let found = found.or(other);
        if found.is_none() {
            self.problems.push(format!("missing key \"{name}\"{hint}"));
        }
        found
    }

    /// Values of a shape, give or take sizes of 1: (G) serves for (1, G, 1).
    fn f32s(&mut self, name: &str, expected: &[usize], hint: &str) -> Option<&'a [f32]> {
        let (name, value) = self.get(name, hint)?;
        let StateValue::F32 { dims, values } = value else {
            self.problems.push(format!("{name} is i64, expected f32"));
            return None;
        };
        let beyond_one = |dims: &[usize]| -> Vec<usize> {
            dims.iter().copied().filter(|&size| size != 1).collect()
        };
        let len: usize = expected.iter().product();
        if beyond_one(dims) != beyond_one(expected) || values.len() != len {
            self.problems.push(format!(
                "size mismatch for {name}: shape {dims:?} and {} values, expected {expected:?}",
                values.len()
            ));
            return None;
        }
        Some(values)
    }

    fn count(&mut self, name: &str) -> Option<i64> {
        let hint = " (PyTorch before 0.4.1 saved none: add one, an i64 of value 0)";
        let (name, value) = self.get(name, hint)?;
        let found = match value {
            StateValue::I64(count @ 0..) => return Some(*count),
            StateValue::I64(count) => count.to_string(),
            StateValue::F32 { dims, .. } => format!("f32 of shape {dims:?}"),
        };
        self.problems
            .push(format!("{name} is {found}, expected an i64 from 0"));
        None
    }
}
