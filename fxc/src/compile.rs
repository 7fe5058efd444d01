//! As wgpu-hal 30 compiles for DX12 without DXC (its `dx12/shader_compilation.rs`).

use std::ffi::CString;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{io, slice, thread};

use bcnorm::kernels::{Spec, canonical_specs};
use bcnorm_backends::Kernel;
use bcnorm_backends::hlsl::{ShaderModel, hlsl};
use windows::Win32::Graphics::Direct3D::Fxc::{
    D3DCOMPILE_ENABLE_STRICTNESS, D3DCompile, D3DDisassemble,
};
use windows::Win32::Graphics::Direct3D::ID3DBlob;
use windows::core::{PCSTR, s};

use crate::report::{Figures, figures, label, line};

/// Compiles every n-th text, on every core, and writes the lines; whether all of them compiled.
pub fn all(every: usize) -> bool {
    let specs = canonical_specs();
    let next = AtomicUsize::new(0);
    let good = AtomicBool::new(true);
    let work = || {
        while let Some(spec) = specs.get(next.fetch_add(every, Ordering::Relaxed)) {
            let outcome = compile(spec);
            if outcome.is_err() {
                good.store(false, Ordering::Relaxed);
            }
            if writeln!(io::stdout(), "{}", line(&label(spec), &outcome)).is_err() {
                // Nobody reads on.
                good.store(false, Ordering::Relaxed);
                break;
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    good.into_inner()
}

fn compile(spec: &Spec) -> Result<Figures, String> {
    let kernel = Kernel::new(*spec).map_err(|error| format!("{error:#}"))?;
    let (text, entry) = hlsl(&kernel, ShaderModel::V5_1).map_err(|error| format!("{error:#}"))?;
    let entry = CString::new(entry).map_err(|error| error.to_string())?;
    let (mut code, mut said) = (None, None);
    // SAFETY: the pointers are to what outlives the call, the texts end in zeros.
    let compiled = unsafe {
        D3DCompile(
            text.as_ptr().cast(),
            text.len(),
            PCSTR::null(),
            None,
            None,
            PCSTR(entry.as_ptr().cast()),
            s!("cs_5_1"),
            D3DCOMPILE_ENABLE_STRICTNESS,
            0,
            &mut code,
            Some(&mut said),
        )
    };
    let said = said.as_ref().map(text_of).unwrap_or_default();
    compiled.map_err(|error| format!("{error}: {said}"))?;
    let code: ID3DBlob = code.ok_or("FXC gave no code")?;
    // SAFETY: the code is a blob of FXC's own.
    let assembly = unsafe {
        D3DDisassemble(
            code.GetBufferPointer(),
            code.GetBufferSize(),
            0,
            PCSTR::null(),
        )
    };
    let assembly = text_of(&assembly.map_err(|error| error.to_string())?);
    figures(&assembly).ok_or_else(|| "FXC's assembly says nothing of its length".to_owned())
}

fn text_of(blob: &ID3DBlob) -> String {
    // SAFETY: a blob holds as many bytes as it says, for as long as it lives.
    let bytes = unsafe {
        slice::from_raw_parts(blob.GetBufferPointer().cast::<u8>(), blob.GetBufferSize())
    };
    String::from_utf8_lossy(bytes)
        .trim_end_matches(['\0', '\n'])
        .to_owned()
}
