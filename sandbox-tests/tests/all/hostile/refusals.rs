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

    refused(&sandbox, "", &expect![[r#""#]]);
    refused(&sandbox, "#!/bin/sh\n", &expect![[r#""#]]);
    refused(&sandbox, PANIC, &expect![[r#""#]]);
    refused(&sandbox, binary("(module)"), &expect![[r#""#]]);
    refused(&sandbox, &good[..good.len() / 2], &expect![[r#""#]]);
    // What the engine compiles to, a .cwasm, is an ELF file.
    refused(
        &sandbox,
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
        &expect![[r#""#]],
    );
    let other_version = PANIC.replace(
        "tidegate:plugin/filter@0.1.0",
        "tidegate:plugin/filter@0.9.0",
    );
    refused(&sandbox, binary(&other_version), &expect![[r#""#]]);
    let other_type = PANIC.replace(
        "(param \"batch\" (list u8))",
        "(param \"batch\" (list u16))",
    );
    refused(&sandbox, binary(&other_type), &expect![[r#""#]]);
    refused(&sandbox, binary("(component)"), &expect![[r#""#]]);
    let no_check = PANIC.replace("(export \"check\" (func $check))", "");
    refused(&sandbox, binary(&no_check), &expect![[r#""#]]);
    let import = "(component (import \"wasi:cli/environment@0.2.0\" (instance))";
    let importing = PANIC.replacen("(component", import, 1);
    refused(&sandbox, binary(&importing), &expect![[r#""#]]);
    let memory = PANIC.replace("(export \"memory\") 1)", "(export \"memory\") 2000)");
    refused(&sandbox, binary(&memory), &expect![[r#""#]]);
    refused(
        &sandbox,
        [good.clone(), custom_section(TOO_LARGE)].concat(),
        &expect![[r#""#]],
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
        &expect![[r#""#]],
    );
    assert_eq!(
        sandbox.tidegate.ok(["plugin", "ls", "-o", "name"]),
        "guest:1\n"
    );
    assert!(sandbox.broker().is_running());
}
