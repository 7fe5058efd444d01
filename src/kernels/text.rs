//! The shaders' texts, as they are compiled in: as they are; in WebAssembly, whose size is download, without
//! comments and most spaces.

/// The text of a shader, by its path from this folder.
macro_rules! shader {
    ($path:expr) => {{
        const TEXT: &str = include_str!($path);
        if cfg!(target_family = "wasm") {
            const LEN: usize = $crate::kernels::text::shortened::<{ TEXT.len() }>(TEXT).1;
            const BYTES: [u8; LEN] = $crate::kernels::text::shortened::<LEN>(TEXT).0;
            // In a constant, so that the long text is not compiled in beside the short one.
            const SHORT: &str = match str::from_utf8(&BYTES) {
                Ok(text) => text,
                Err(_) => panic!("a shader that is not UTF-8"),
            };
            SHORT
        } else {
            TEXT
        }
    }};
}
pub(super) use shader;

/// Comments that stay: directives (see `source.rs`).
const KEPT: &[u8] = b"// #";

/// Spaces beside these mean nothing. (`-` is not among them: `a - -b`.)
const ALONE: &[u8] = b"(){}[],;:=+*/%<>&|!";

const fn stands_alone(byte: u8) -> bool {
    let mut i = 0;
    while i < ALONE.len() {
        if ALONE[i] == byte {
            return true;
        }
        i += 1;
    }
    false
}

/// Whether a line's rest begins so.
const fn begins(text: &[u8], at: usize, with: &[u8]) -> bool {
    let mut i = 0;
    while i < with.len() {
        if at + i >= text.len() || text[at + i] != with[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Lines that end so go on in the next one. (Blocks end lines, so that what a browser says of a line says where.)
const fn goes_on(byte: u8) -> bool {
    byte == b';' || byte == b'{' || byte == b','
}

/// WGSL without comments, indentation, most spaces and most ends of lines, the same tokens; and its length. What exceeds N
/// bytes is left out.
pub(super) const fn shortened<const N: usize>(text: &str) -> ([u8; N], usize) {
    let text = text.as_bytes();
    let mut out = [0; N];
    let mut len = 0;
    let mut at = 0;
    // Whether the line before stays as it is.
    let mut kept_before = false;
    while at < text.len() {
        // A line: from where its text begins.
        while at < text.len() && (text[at] == b' ' || text[at] == b'\n') {
            at += 1;
        }
        let kept = begins(text, at, KEPT);
        let empty = at >= text.len() || (!kept && begins(text, at, b"//"));
        if !empty {
            if len > 0 && (kept || kept_before || !goes_on(out[len - 1])) {
                if len < N {
                    out[len] = b'\n';
                }
                len += 1;
            }
            kept_before = kept;
        }
        let start = len;
        while at < text.len() && text[at] != b'\n' {
            if begins(text, at, b"//") && !kept {
                while at < text.len() && text[at] != b'\n' {
                    at += 1;
                }
                break;
            }
            let byte = text[at];
            at += 1;
            let next = if at < text.len() { text[at] } else { b'\n' };
            let spare = byte == b' '
                && !kept
                && (next == b' '
                    || next == b'\n'
                    || begins(text, at, b"//")
                    || stands_alone(next)
                    || len > start && stands_alone(out[len - 1]));
            if !spare {
                if len < N {
                    out[len] = byte;
                }
                len += 1;
            }
        }
    }
    if len > 0 {
        if len < N {
            out[len] = b'\n';
        }
        len += 1;
    }
    (out, len)
}

#[cfg(test)]
mod tests {
    use super::shortened;

    const TEXT: &str = "// A comment.
@group(0) @binding(1) var<storage, read> weight: array<f32>; // another

fn f(a: f32, b: vec2<u32>) -> f32 {
    // Where it is not.
    let c = a - -1.0  * f32(b.x / 2u) + select(1.0, 0.5, a >= 0.0 && b.y != 1u); // c
    return -c;
}
// #if weight
fn g() {}";

    #[test]
    fn comments_and_spaces_go() {
        let (bytes, len) = shortened::<1000>(TEXT);
        let text = str::from_utf8(&bytes[..len]).unwrap();
        assert_eq!(
            text,
            "@group(0)@binding(1)var<storage,read>weight:array<f32>;fn f(a:f32,b:vec2<u32>)->f32{\
let c=a - -1.0*f32(b.x/2u)+select(1.0,0.5,a>=0.0&&b.y!=1u);return -c;}
// #if weight
fn g(){}
"
        );
    }

    /// Nothing but spaces and comments goes, of every kernel.
    #[test]
    fn tokens_stay() {
        let tokens = |text: &str| -> Vec<String> {
            let lines = text.lines().map(|line| line.split("//").next().unwrap());
            let mut tokens: Vec<String> = vec![];
            for line in lines {
                let mut word = false;
                for c in line.chars() {
                    let of_word = c.is_ascii_alphanumeric() || c == '_' || c == '.';
                    match (c, tokens.last_mut()) {
                        (' ', _) => {}
                        (_, Some(last)) if of_word && word => last.push(c),
                        _ => tokens.push(c.into()),
                    }
                    word = of_word;
                }
            }
            tokens
        };
        for kernel in crate::kernels::KernelId::ALL {
            let long = kernel.kernel().text;
            let (bytes, len) = shortened::<20_000>(long);
            let short = str::from_utf8(&bytes[..len]).unwrap();
            assert!(len < long.len());
            assert_eq!(tokens(short), tokens(long), "{}", kernel.name());
            // Operators of two characters stay whole.
            for pair in [
                "- -", "& &", "| |", "< <", "> >", "- >", "! =", "/ *", "/ /",
            ] {
                assert_eq!(
                    short.contains(pair),
                    long.contains(pair),
                    "{}",
                    kernel.name()
                );
            }
        }
    }
}
