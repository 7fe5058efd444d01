//! What there is to count in the final code of a kernel, as LLVM's disassembler writes it: labels (`BB12:`) at the beginning of
//! lines, instructions behind a tab.

/// A kernel's code.
#[derive(Debug, Default, PartialEq)]
pub struct Code {
    /// All instructions.
    pub instructions: u32,
    /// The innermost loops, in their order.
    pub loops: Vec<Loop>,
}

/// A loop without loops in it: from a label to the last branch back to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loop {
    /// Its instructions.
    pub instructions: u32,
    /// Bytes of each load from a buffer, of an invocation.
    pub loads: Vec<u32>,
    /// Bytes of each store to a buffer.
    pub stores: Vec<u32>,
}

impl Code {
    /// Reads a disassembly.
    pub fn read(text: &str) -> Self {
        let mut lines = Vec::new();
        for line in text.lines() {
            let line = line.split(';').next().unwrap_or_default();
            if let Some(label) = line.trim_end().strip_suffix(':') {
                lines.push(Line::Label(label));
            } else if line.starts_with('\t') {
                let mut words = line.split_whitespace();
                let name = words.next().unwrap_or_default();
                lines.push(Line::Instruction(name, words.next().unwrap_or_default()));
            }
        }
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let Line::Instruction(name, target) = line else {
                continue;
            };
            let is_branch = name.starts_with("s_branch") || name.starts_with("s_cbranch");
            let begins = lines[..at]
                .iter()
                .position(|line| *line == Line::Label(target));
            if let (true, Some(begin)) = (is_branch, begins) {
                // Several branches may go back to one label: the last one ends the loop.
                spans.retain(|span| span.0 != begin);
                spans.push((begin, at));
            }
        }
        let innermost = spans.iter().filter(|outer| {
            let mut others = spans.iter();
            !others.any(|inner| inner != *outer && outer.0 <= inner.0 && inner.1 <= outer.1)
        });
        let mut innermost: Vec<_> = innermost.collect();
        innermost.sort();
        Self {
            instructions: count(&lines),
            loops: innermost
                .into_iter()
                .map(|&(from, to)| Loop::of(&lines[from..=to]))
                .collect(),
        }
    }

    /// The loop that moves the most bytes, the first of several.
    pub fn main_loop(&self) -> Option<&Loop> {
        let bytes = |one: &Loop| one.loads.iter().sum::<u32>() + one.stores.iter().sum::<u32>();
        let most = self.loops.iter().map(bytes).max()?;
        self.loops.iter().find(|one| bytes(one) == most && most > 0)
    }
}

impl Loop {
    fn of(lines: &[Line<'_>]) -> Self {
        let mut found = Self {
            instructions: count(lines),
            ..Self::default()
        };
        for line in lines {
            let Line::Instruction(name, _) = line else {
                continue;
            };
            if let Some(width) = name.strip_prefix("buffer_load_") {
                found.loads.push(bytes(width));
            } else if let Some(width) = name.strip_prefix("buffer_store_") {
                found.stores.push(bytes(width));
            }
        }
        found
    }
}

#[derive(Debug, PartialEq)]
enum Line<'a> {
    Label(&'a str),
    Instruction(&'a str, &'a str),
}

fn count(lines: &[Line<'_>]) -> u32 {
    let instructions = lines
        .iter()
        .filter(|line| matches!(line, Line::Instruction(..)));
    instructions.count() as u32
}

/// The width in an instruction's name: `dwordx4` until GFX10, `b128` since GFX11.
fn bytes(width: &str) -> u32 {
    match width {
        "dwordx4" | "b128" => 16,
        "dwordx3" | "b96" => 12,
        "dwordx2" | "b64" => 8,
        "dword" | "b32" => 4,
        "ushort" | "sshort" | "short" | "u16" | "i16" | "b16" => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_are_found() {
        let text = "BB0:\n\ts_mov_b32 s0, s3 ; be800303\nBB1:\n\tv_add_f32 v1, v2, v3\nBB2:\n\
                    \tbuffer_load_dwordx4 v[0:3], v4, s[0:3], 0 offen\n\tbuffer_load_b32 v5, v4, s[0:3], 0 offen\n\
                    \ts_cbranch_scc0 BB3\n\tv_mul_f32 v1, v1, v1\n\ts_branch BB2 ; bf82ff51\nBB3:\n\
                    \ts_cbranch_scc1 BB1\n\tbuffer_store_dwordx2 v[0:1], v2, s[0:3], 0 offen\n\ts_endpgm\n";
        let code = Code::read(text);
        assert_eq!(code.instructions, 10);
        let inner = Loop {
            instructions: 5,
            loads: vec![16, 4],
            stores: vec![],
        };
        assert_eq!(code.loops, std::slice::from_ref(&inner));
        assert_eq!(code.main_loop(), Some(&inner));
    }

    #[test]
    fn a_kernel_without_loops_has_no_main_one() {
        assert_eq!(Code::read("BB0:\n\ts_endpgm\n").main_loop(), None);
    }
}
