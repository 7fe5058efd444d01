//! As wgpu-hal 30 compiles for DX12 without DXC (its `dx12/device.rs` and `dx12/shader_compilation.rs`).

use std::ffi::CString;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{io, slice, thread};

use bcnorm::kernels::{Access, Spec, canonical_specs, wgsl};
use naga::back::hlsl::{self, BindTarget};
use naga::valid::{Capabilities, ValidationFlags, Validator};
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
    let (text, entry) = to_hlsl(spec)?;
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

/// The HLSL of a text, and its entry point's name there: what wgpu has naga write for such a pipeline.
fn to_hlsl(spec: &Spec) -> Result<(String, String), String> {
    let text = wgsl(spec);
    let module = naga::front::wgsl::parse_str(&text).map_err(|e| e.emit_to_string(&text))?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
    let info = validator
        .validate(&module)
        .map_err(|e| e.emit_to_string(&text))?;
    let entry = (naga::ShaderStage::Compute, spec.kernel.name().to_owned());
    let pipeline = hlsl::PipelineOptions {
        entry_point: Some(entry),
    };
    let options = options(spec);
    let mut source = String::new();
    let mut writer = hlsl::Writer::new(&mut source, &options, &pipeline);
    let reflection = writer.write(&module, &info, None);
    let mut names = reflection.map_err(|e| e.to_string())?.entry_point_names;
    let name = names.pop().ok_or("naga wrote no entry point")?;
    Ok((source, name.map_err(|e| e.to_string())?))
}

/// A pipeline layout's options, with what wgpu adds for a stage: checks as for any module of WGSL, and workgroup memory as
/// it is, as `src/gpu/mod.rs` asks for all but Metal.
fn options(spec: &Spec) -> hlsl::Options {
    let mut options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V5_1,
        fake_missing_bindings: false,
        zero_initialize_workgroup_memory: false,
        restrict_indexing: true,
        force_loop_bounding: true,
        ..Default::default()
    };
    let mut bind = |binding, register| {
        let target = BindTarget {
            register,
            ..Default::default()
        };
        let place = naga::ResourceBinding { group: 0, binding };
        options.binding_map.insert(place, target);
    };
    // Registers are counted by their kinds: b, t and u.
    bind(0, 0);
    let (mut read, mut written) = (0, 0);
    for (number, binding) in spec.bindings() {
        let count = match binding.access {
            Access::Read => &mut read,
            Access::ReadWrite => &mut written,
        };
        bind(number, *count);
        *count += 1;
    }
    // The number of workgroups is a root constant behind the uniform.
    options.special_constants_binding = Some(BindTarget {
        register: 1,
        ..Default::default()
    });
    options
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
