//! Kernels' texts with the least precision that WGSL allows ("Accuracy of concrete floating point expressions"): quotients are
//! 2.5 units in the last place off, reciprocal roots 2, all to the same side, as a GPU's approximations may be. Software
//! adapters round both correctly, or nearly so.

use naga::valid::{Capabilities, FunctionInfo, ValidationFlags, Validator};
use naga::{BinaryOperator, Expression, Function, MathFunction, Module, ScalarKind};

const UNIT: f64 = 1.0 / (1 << 23) as f64;

/// The text with quotients and reciprocal roots that are too small.
pub fn imprecise(text: &str) -> String {
    let module = naga::front::wgsl::parse_str(text).unwrap();
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    let info = validator.validate(&module).unwrap();
    let mut insertions = Vec::new();
    for (handle, function) in module.functions.iter() {
        find(text, &module, function, &info[handle], &mut insertions);
    }
    for (index, entry) in module.entry_points.iter().enumerate() {
        find(
            text,
            &module,
            &entry.function,
            info.get_entry_point(index),
            &mut insertions,
        );
    }
    // From the last to the first, so that places stay; a bracket that closes goes before one that opens.
    insertions.sort_by_key(|&(place, units)| std::cmp::Reverse((place, units.is_none())));
    let mut text = text.to_string();
    for (place, units) in insertions {
        match units {
            None => text.insert(place, '('),
            // The product rounds once more, by half a unit.
            Some(units) => {
                let factor = 1.0 - (units - 0.5) * UNIT;
                text.insert_str(place, &format!(" * {factor:.9})"));
            }
        }
    }
    text
}

/// Where brackets open (`None`), and where they close behind what may be how many units off.
fn find(
    text: &str,
    module: &Module,
    function: &Function,
    info: &FunctionInfo,
    insertions: &mut Vec<(usize, Option<f64>)>,
) {
    for (handle, expression) in function.expressions.iter() {
        let units = match expression {
            Expression::Binary {
                op: BinaryOperator::Divide,
                ..
            } => 2.5,
            Expression::Math {
                fun: MathFunction::InverseSqrt,
                ..
            } => 2.0,
            _ => continue,
        };
        let scalar = info[handle].ty.inner_with(&module.types).scalar();
        if scalar.is_some_and(|scalar| scalar.kind == ScalarKind::Float)
            && let Some(range) = function.expressions.get_span(handle).to_range()
        {
            // Of a call naga has the name.
            let end = range.end + arguments(&text[range.end..]);
            insertions.extend([(range.start, None), (end, Some(units))]);
        }
    }
}

/// How long the arguments in brackets are that the text begins with, if it does.
fn arguments(text: &str) -> usize {
    let mut depth = 0;
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth <= 0 {
            return if byte == b')' && depth == 0 {
                place + 1
            } else {
                0
            };
        }
    }
    0
}
