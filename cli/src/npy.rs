//! Reads NumPy's `.npy` files: one little-endian float tensor in C order.

use anyhow::{Context as _, Result, bail, ensure};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;

/// The eight first bytes, less the version.
const MAGIC: &[u8] = b"\x93NUMPY";

/// The tensor of a file, as a safetensors file would hold it.
pub fn parse(bytes: &[u8]) -> Result<TensorView<'_>> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        bail!(
            "not in .npy format: it does not begin with \\x93NUMPY (text? save it with numpy.save)"
        );
    };
    let short = "the header is cut off";
    let (&[major, _minor], rest) = rest.split_first_chunk::<2>().context(short)?;
    // Version 1 counts the header in 16 bits, later ones in 32.
    let (length, rest) = match major {
        1 => {
            let (length, rest) = rest.split_first_chunk::<2>().context(short)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk::<4>().context(short)?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        _ => bail!("version {major} of the .npy format is not known (1 to 3 are)"),
    };
    let (header, data) = rest.split_at_checked(length).context(short)?;
    let header = std::str::from_utf8(header).context("the header is no text")?;
    let Header {
        descr,
        fortran_order,
        shape: dims,
    } = header_of(header).with_context(|| format!("the header {:?}", header.trim()))?;

    ensure!(
        !fortran_order,
        "it is in Fortran order: save numpy.ascontiguousarray(array)"
    );
    let (dtype, width) = match descr.as_str() {
        "<f2" => (Dtype::F16, 2),
        "<f4" => (Dtype::F32, 4),
        "<f8" => (Dtype::F64, 8),
        _ => bail!(
            "its dtype is {descr:?}, expected <f2 (float16), <f4 (float32) or <f8 (float64): save \
             array.astype(numpy.float32)"
        ),
    };
    let expected = dims
        .iter()
        .try_fold(width, |bytes: usize, &size| bytes.checked_mul(size))
        .with_context(|| format!("the shape {dims:?} is too large"))?;
    ensure!(
        data.len() == expected,
        "it has {} bytes of data, expected {expected} for shape {dims:?} of {descr}",
        data.len()
    );
    Ok(TensorView::new(dtype, dims, data)?)
}

/// The dictionary that NumPy writes: `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

/// Of strings that have no spaces and no brackets, a dictionary of Python's is JSON but for these.
fn header_of(text: &str) -> serde_json::Result<Header> {
    let mut json: String = text.split_whitespace().collect();
    for (python, other) in [
        ("'", "\""),
        ("True", "true"),
        ("False", "false"),
        ("(", "["),
        (")", "]"),
        (",]", "]"),
        (",}", "}"),
    ] {
        json = json.replace(python, other);
    }
    serde_json::from_str(&json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    const HEADER: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3), }      \n";

    /// Type, shape and bytes.
    fn read(bytes: &[u8]) -> (Dtype, Vec<usize>, Vec<u8>) {
        let view = parse(bytes).unwrap();
        (view.dtype(), view.shape().to_vec(), view.data().to_vec())
    }

    #[test]
    fn what_numpy_writes_is_read() {
        let values = floats(&[1.0, -2.5, 3.0, f32::MIN_POSITIVE, 0.0, 7.0]);
        for version in 1..=3 {
            let found = read(&file(version, HEADER, &values));
            assert_eq!(found, (Dtype::F32, vec![1, 2, 3], values.clone()));
        }
        for (descr, dtype, width) in [("<f2", Dtype::F16, 2), ("<f8", Dtype::F64, 8)] {
            let header = HEADER.replace("<f4", descr);
            let data: Vec<u8> = (0..6 * width).collect();
            let found = read(&file(1, &header, &data));
            assert_eq!(found, (dtype, vec![1, 2, 3], data));
        }
        // A tensor without dimensions has one value, one of size 0 has none.
        let scalar = HEADER.replace("(1, 2, 3)", "()");
        let found = read(&file(1, &scalar, &values[..4]));
        assert_eq!(found, (Dtype::F32, vec![], values[..4].to_vec()));
        let empty = HEADER.replace("(1, 2, 3)", "(0, 3)");
        assert_eq!(
            read(&file(1, &empty, &[])),
            (Dtype::F32, vec![0, 3], vec![])
        );
    }

    #[test]
    fn all_else_is_refused_with_a_reason() {
        let data = floats(&[0.0; 6]);
        let with = |from: &str, to: &str| file(1, &HEADER.replace(from, to), &data);
        for (bytes, reason) in [
            (b"1.0 2.0 3.0".to_vec(), "not in .npy format"),
            (Vec::new(), "not in .npy format"),
            (file(9, HEADER, &data), "version 9"),
            (with("<f4", "<V2"), "<V2"),
            (with("<f4", ">f4"), ">f4"),
            (with("False", "True"), "Fortran"),
            (with("False", "Maybe"), "Maybe"),
            (with("(1, 2, 3)", "(1, 2, 4)"), "24 bytes"),
            (
                with("(1, 2, 3)", "(1, -2, 3)"),
                "invalid value: integer `-2`",
            ),
            (
                with("(1, 2, 3)", "5"),
                "invalid type: integer `5`, expected a sequence",
            ),
            (with("'shape'", "'shade'"), "unknown field `shade`"),
            (
                with("'<f4'", "[('a', '<f4')]"),
                "invalid type: sequence, expected a string",
            ),
            (with("}", ""), "EOF while parsing"),
            (
                with("(1, 2, 3), ", "(99999999999, 99999999999)"),
                "too large",
            ),
        ] {
            let error = format!("{:#}", parse(&bytes).unwrap_err());
            assert!(error.contains(reason), "\"{error}\" lacks \"{reason}\"");
        }
        // Cut anywhere, it is an error and no panic.
        let whole = file(1, HEADER, &data);
        for length in 0..whole.len() {
            parse(&whole[..length]).unwrap_err();
        }
    }
}
