//! What is no filter is refused at deploy, each with its own code.

use expect_test::{Expect, expect};

use super::{PANIC, binary};
use crate::sandbox::Sandbox;

/// Bytes of an upload over the limit.
const TOO_LARGE: usize = 3 * 1024 * 1024;

/// A custom section, which means nothing and may stand anywhere (WebAssembly 2.0, section 5.5.3).
fn custom_section(len: usize) -> Vec<u8> {
    let mut size = len + 2;
    let mut section = vec![0];
    loop {
        let low = u8::try_from(size & 0x7f).unwrap();
        size >>= 7;
        section.push(if size == 0 { low } else { low | 0x80 });
        if size == 0 {
            break;
        }
    }
    section.extend([1, b'x']);
    section.resize(section.len() + len, 0);
    section
}

/// Deploys `upload`, which must fail; gives the exit code and what was said.
fn refused(sandbox: &Sandbox, upload: impl AsRef<[u8]>, expected: &Expect) {
    let file = sandbox.file("guest.wasm", upload);
    let deploy = [
        "plugin",
        "deploy",
        &file,
        "--name",
        "guest",
        "--version",
        "1",
    ];
    let finished = sandbox.tidegate.run(deploy);
    assert_eq!(finished.stdout, "");
    expected.assert_eq(&format!("exit {}\n{}", finished.code, finished.stderr));
}

#[test]
fn each_upload_is_refused_for_its_own_reason() {
    let mut sandbox = Sandbox::start();
    let good = binary(PANIC);

    refused(
        &sandbox,
        "",
        &expect![[r#"
        exit 1
        error[TG0301]: the upload is no WebAssembly component: it is empty
          hint: build it with `tidegate plugin build`, which makes a component of a Rust crate or a core module
    "#]],
    );
    refused(
        &sandbox,
        "#!/bin/sh\n",
        &expect![[r#"
        exit 1
        error[TG0301]: the upload is no WebAssembly component: it doesn't begin as WebAssembly does
          hint: build it with `tidegate plugin build`, which makes a component of a Rust crate or a core module
    "#]],
    );
    refused(
        &sandbox,
        PANIC,
        &expect![[r#"
        exit 1
        error[TG0301]: the upload is no WebAssembly component: it doesn't begin as WebAssembly does
          hint: build it with `tidegate plugin build`, which makes a component of a Rust crate or a core module
    "#]],
    );
    refused(
        &sandbox,
        binary("(module)"),
        &expect![[r#"
        exit 1
        error[TG0301]: the upload is no WebAssembly component: it is a core module
          hint: build it with `tidegate plugin build`, which makes a component of a Rust crate or a core module
    "#]],
    );
    refused(
        &sandbox,
        &good[..good.len() / 2],
        &expect![[r#"
        exit 1
        error[TG0301]: the upload is no WebAssembly component: it is damaged: unexpected end-of-file (at offset 0x14f)
          hint: build it with `tidegate plugin build`, which makes a component of a Rust crate or a core module
    "#]],
    );
    // What the engine compiles to, a .cwasm, is an ELF file.
    refused(
        &sandbox,
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
        &expect![[r#"
            exit 1
            error[TG0301]: the upload is no WebAssembly component: it is native or precompiled code, which is never taken
              hint: build it with `tidegate plugin build`, which makes a component of a Rust crate or a core module
        "#]],
    );
    let other_version = PANIC.replace(
        "tidegate:plugin/filter@0.1.0",
        "tidegate:plugin/filter@0.9.0",
    );
    refused(
        &sandbox,
        binary(&other_version),
        &expect![[r#"
        exit 1
        error[TG0302]: the component doesn't fit tidegate:plugin/filter@0.1.0: it exports tidegate:plugin/filter@0.9.0
          hint: build it against the SDK of this server's version; `tidegate plugin build` uses the right world
    "#]],
    );
    let other_type = PANIC.replace(
        "(param \"batch\" (list u8))",
        "(param \"batch\" (list u16))",
    );
    refused(
        &sandbox,
        binary(&other_type),
        &expect![[r#"
        exit 1
        error[TG0302]: the component doesn't fit tidegate:plugin/filter@0.1.0: `check` has another type: type mismatch with parameters: expected `u8` found `u16`
          hint: build it against the SDK of this server's version; `tidegate plugin build` uses the right world
    "#]],
    );
    refused(
        &sandbox,
        binary("(component)"),
        &expect![[r#"
        exit 1
        error[TG0303]: the component doesn't export tidegate:plugin/filter@0.1.0
          hint: `tidegate_plugin_sdk::filter!(keep)` writes every export
    "#]],
    );
    let no_check = PANIC.replace("(export \"check\" (func $check))", "");
    refused(
        &sandbox,
        binary(&no_check),
        &expect![[r#"
        exit 1
        error[TG0303]: the component doesn't export tidegate:plugin/filter@0.1.0#check
          hint: `tidegate_plugin_sdk::filter!(keep)` writes every export
    "#]],
    );
    let import = "(component (import \"wasi:cli/environment@0.2.0\" (instance))";
    let importing = PANIC.replacen("(component", import, 1);
    refused(
        &sandbox,
        binary(&importing),
        &expect![[r#"
        exit 1
        error[TG0304]: the component imports "wasi:cli/environment@0.2.0", which a filter isn't given
          hint: build for wasm32-unknown-unknown, not for a WASI target, and drop what needs a clock, files, randomness or the network
    "#]],
    );
    let memory = PANIC.replace("(export \"memory\") 1)", "(export \"memory\") 2000)");
    refused(
        &sandbox,
        binary(&memory),
        &expect![[r#"
        exit 1
        error[TG0306]: the component has 131072000 bytes of memory to begin with; at most 33554432
          hint: leave out what the filter doesn't need; generated or merged modules are often the cause
    "#]],
    );
    refused(
        &sandbox,
        [good.clone(), custom_section(TOO_LARGE)].concat(),
        &expect![[r#"
            exit 1
            error[TG0305]: a request frame has at most 2162688 bytes; this one announces 3146455
              hint: tidegate help TG0305
        "#]],
    );

    // Nothing of these was kept, and the same name takes what is right.
    assert_eq!(sandbox.tidegate.ok(["plugin", "ls", "-o", "name"]), "");
    let file = sandbox.file("guest.wasm", &good);
    sandbox
        .tidegate
        .ok(["plugin", "deploy", &file, "--version", "1"]);
    refused(
        &sandbox,
        [good.clone(), custom_section(1)].concat(),
        &expect![[r#"
            exit 5
            error[TG0311]: plugin guest:1 stands for another component already
              hint: tidegate help TG0311
        "#]],
    );
    assert_eq!(
        sandbox.tidegate.ok(["plugin", "ls", "-o", "name"]),
        "guest:1\n"
    );
    assert!(sandbox.broker().is_running());
}
