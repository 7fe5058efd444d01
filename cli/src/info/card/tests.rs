use super::*;
use bcnorm::{DType, Layout, NormKind};

fn h200() -> &'static Card {
    CARDS.iter().find(|card| card.name == "h200").unwrap()
}

fn request(dims: &[usize], dtype: DType, layout: Layout) -> Request {
    let Request { norm, tensor } = Request::new(NormKind::BcNorm, dims, None).unwrap();
    let tensor = tensor.with_dtype(dtype).with_layout(layout);
    Request { norm, tensor }
}

/// benches/RESULTS.md, microseconds on an H200: forward, backward, eval by rows, a copy. (0: not measured, or in one kernel.)
const MEASURED: [(&[usize], [f64; 4]); 17] = [
    (&[32, 256, 56, 56], [93.7, 136.1, 89.6, 50.5]),
    (&[32, 64, 112, 112], [96.5, 139.6, 93.5, 50.7]),
    (&[32, 512, 28, 28], [54.9, 78.4, 53.0, 27.3]),
    (&[32, 128, 56, 56], [52.9, 78.5, 50.5, 26.9]),
    (&[2, 256, 100, 152], [39.0, 57.3, 36.4, 17.3]),
    (&[32, 1024, 14, 14], [33.5, 48.9, 31.0, 13.7]),
    (&[32, 64, 56, 56], [30.7, 45.5, 28.3, 13.7]),
    (&[32, 256, 28, 28], [31.6, 45.8, 29.5, 13.8]),
    (&[32, 2048, 7, 7], [24.8, 34.8, 23.2, 5.5]),
    (&[32, 128, 28, 28], [21.3, 27.0, 0.0, 5.5]),
    (&[32, 512, 14, 14], [21.4, 27.4, 0.0, 5.5]),
    (&[4, 256, 56, 56], [21.1, 26.8, 20.4, 5.8]),
    (&[1, 64, 224, 224], [23.0, 28.8, 22.9, 5.8]),
    (&[8, 64, 56, 56], [16.5, 18.8, 15.1, 4.1]),
    (&[32, 256, 14, 14], [16.8, 19.4, 15.5, 4.1]),
    (&[32, 512, 7, 7], [15.4, 18.4, 0.0, 2.9]),
    (&[16, 512, 7, 7], [13.9, 16.8, 12.4, 2.4]),
];

/// Prints a prediction beside what was measured; they are no further apart than a factor.
fn compare(what: &str, predicted: f64, measured: f64, factor: f64) {
    let ratio = predicted / measured;
    println!("{what}: {predicted:.1} predicted, {measured} measured, {ratio:.2}");
    assert!(
        (1.0 / factor..=factor).contains(&ratio),
        "{what}: {predicted:.1}, not {measured}"
    );
}

#[test]
#[should_panic(expected = "slow: 14.0, not 10")]
fn a_prediction_can_be_wrong() {
    compare("slow", 14.0, 10.0, 1.3);
}

#[test]
fn an_h200_takes_what_is_predicted() {
    for (dims, [forward, backward, eval, copy]) in MEASURED {
        let request = request(dims, DType::F32, Layout::ChannelsFirst);
        let large = request.tensor.bytes() > 25_000_000;
        let factor = if large { 1.2 } else { 1.3 };
        for (direction, measured) in Direction::ALL.into_iter().zip([forward, backward, eval]) {
            let found = Prediction::new(h200(), &request, direction).unwrap();
            if measured > 0.0 {
                let what = format!("{dims:?} {}", direction.name());
                compare(&what, found.total_us, measured, factor);
            }
            // Tensors of 13 MB and less are held by the L2, which the model has not.
            let factor = if large { 1.1 } else { 1.5 };
            compare(&format!("{dims:?} copy"), found.copy_us, copy, factor);
        }
    }
}

/// Of the same file, by how the tensor is stored (f16 by integers, or by the device's conversions; channels last), and of ragged
/// rows: forward, backward, eval, and the factor. (The kernels of short rows are no longer those that were measured.)
const OTHERS: [(&[usize], &str, [f64; 3], f64); 9] = [
    (&[32, 256, 56, 56], "bf16", [60.0, 81.4, 56.8], 1.2),
    (&[32, 256, 56, 56], "f16", [78.2, 109.4, 75.6], 1.2),
    (&[32, 256, 56, 56], "f16 native", [62.0, 88.0, 0.0], 1.2),
    (&[32, 256, 56, 56], "last", [110.7, 152.2, 103.3], 1.2),
    (&[32, 1024, 14, 14], "last", [37.7, 55.7, 34.7], 1.2),
    (&[3, 67, 113, 113], "f32", [25.2, 29.4, 0.0], 1.2),
    (&[5, 129, 57, 57], "f32", [21.2, 24.8, 0.0], 1.2),
    (&[64, 2048, 3, 3], "f32", [25.2, 29.7, 0.0], 1.2),
    (&[256, 1024, 4, 4], "f32", [38.6, 53.9, 0.0], 1.2),
];

#[test]
fn other_plans_take_what_is_predicted() {
    for (dims, storage, times, factor) in OTHERS {
        let (dtype, layout) = match storage {
            "bf16" => (DType::BF16, Layout::ChannelsFirst),
            "f16" | "f16 native" => (DType::F16, Layout::ChannelsFirst),
            "last" => (DType::F32, Layout::ChannelsLast),
            _ => (DType::F32, Layout::ChannelsFirst),
        };
        let native = u32::from(storage == "f16 native");
        let tuning = h200().tuning();
        let tuning =
            tuning.with(|t| (t.limits.native_unpack, t.limits.native_pack) = (native, native));
        let request = request(dims, dtype, layout);
        for (direction, measured) in Direction::ALL.into_iter().zip(times) {
            let found = Prediction::with(h200(), &request, direction, &tuning).unwrap();
            if measured > 0.0 {
                let what = format!("{dims:?} {storage} {}", direction.name());
                compare(&what, found.total_us, measured, factor);
            }
        }
    }
}

/// The instructions of every kernel of every plan are known, and something bounds each.
#[test]
fn every_plan_is_predicted() {
    let shapes: [&[usize]; 9] = [
        &[8, 64, 56, 56],
        &[2, 3, 113, 7],
        &[2048, 32, 5, 5],
        &[5000, 3],
        &[64, 62],
        &[4, 33, 3],
        &[1, 1, 9, 9],
        &[2, 6, 2, 2],
        &[9, 16],
    ];
    let mut planned = 0;
    for dims in shapes {
        for &kind in NormKind::ALL {
            let Ok(Request { norm, tensor }) = Request::new(kind, dims, None) else {
                continue;
            };
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                    let tensor = tensor.clone().with_dtype(dtype).with_layout(layout);
                    let request = Request { norm, tensor };
                    for (card, direction) in chosen(&["all".to_owned()])
                        .flat_map(|card| Direction::ALL.map(|direction| (card, direction)))
                    {
                        if request.plan(direction, &card.tuning()).is_err() {
                            continue;
                        }
                        let found = Prediction::new(card, &request, direction).unwrap();
                        assert!(found.total_us.is_finite() && found.total_us > 1.0);
                        planned += 1;
                    }
                }
            }
        }
    }
    assert!(planned > 5000, "{planned}");
}

#[test]
fn predictions_say_what_they_are() {
    let request = request(&[32, 256, 56, 56], DType::F32, Layout::ChannelsFirst);
    let one = |name: &str| {
        let card = chosen(&[name.to_owned()]).next().unwrap();
        Prediction::new(card, &request, Direction::Forward).unwrap()
    };
    let (h200, m2) = (one("h200"), one("m2"));
    assert!(h200.share > 0.7 && h200.share < 0.95, "{h200}");
    assert!(h200.to_string().contains("h200") && m2.to_string().contains("uncalibrated"));
    assert!(m2.steps.iter().any(|step| step.bound_by == Bound::Memory));
    assert!(NOTE.contains("prediction") && NOTE.contains("uncalibrated"));
    assert_eq!(chosen(&["all".to_owned()]).count(), CARDS.len());
}
