//! Guests as text: a good one, and parts of it to be replaced.

/// The functions of a guest's core module, in text. Each may be replaced by another.
///
/// The module's memory: manifest at 64, result of `configure` at 96, result of `check` at 128, verdict
/// at 256, arguments from 4096 on.
#[derive(Clone)]
pub(crate) struct Guest {
    memory: String,
    /// Further fields of the module: globals, functions, data.
    fields: String,
    realloc: String,
    describe: String,
    configure: String,
    check: String,
    /// Options of the lifted `check`, as in `(post-return ...)`.
    check_options: String,
    /// Further definitions of the component.
    component: String,
    manifest: [u8; 10],
    interface: String,
}

impl Default for Guest {
    /// Keeps every record.
    fn default() -> Self {
        Self {
            memory: "1".into(),
            fields: String::new(),
            realloc: BUMP.into(),
            describe: "(i32.const 64)".into(),
            configure: "(i32.const 96)".into(),
            check: KEEP_ALL.into(),
            check_options: String::new(),
            component: String::new(),
            manifest: MANIFEST,
            interface: tidegate_wit::FILTER_INTERFACE.into(),
        }
    }
}

/// Layout 1, needs everything, no state.
pub(crate) const MANIFEST: [u8; 10] = [1, 0, 0, 0, 1, 1, 1, 1, 1, 0];

/// Hands out memory from 4096 on, growing as it must; `check` gives all of it back.
const BUMP: &str = r"
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $at) (local.get $new_len)))
    (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
      (then (if (i32.eq (i32.const -1) (memory.grow (i32.add (i32.const 1)
          (i32.shr_u (i32.sub (global.get $next) (i32.mul (memory.size) (i32.const 65536))) (i32.const 16)))))
        (then unreachable))))
    (local.get $at)";

/// Writes a verdict that keeps all records of the call; their number stands at 16 in it.
const KEEP_ALL: &str = r"
    (local $records i32)
    (local.set $records (i32.load offset=16 (local.get $ptr)))
    (memory.fill (i32.const 256) (i32.const 255) (i32.shr_u (local.get $records) (i32.const 3)))
    (if (i32.and (local.get $records) (i32.const 7)) (then
      (i32.store8 (i32.add (i32.const 256) (i32.shr_u (local.get $records) (i32.const 3)))
        (i32.sub (i32.shl (i32.const 1) (i32.and (local.get $records) (i32.const 7))) (i32.const 1)))))
    (call $answer (i32.shr_u (i32.add (local.get $records) (i32.const 7)) (i32.const 3)))";

/// Keeps the records that have the tag `keep`, read from tables and heads as they are stored.
pub(crate) const KEEP_TAGGED: &str = r#"
    (local $batches i32) (local $count i32) (local $i i32) (local $bit i32)
    (local $table i32) (local $heads i32) (local $head i32) (local $tag i32)
    (memory.fill (i32.const 256) (i32.const 0) (i32.const 32))
    (local.set $batches (i32.load offset=4 (local.get $ptr)))
    (local.set $ptr (i32.add (local.get $ptr) (i32.const 24)))
    (block $done (loop $batch
      (br_if $done (i32.eqz (local.get $batches)))
      (local.set $batches (i32.sub (local.get $batches) (i32.const 1)))
      (local.set $count (i32.load offset=20 (local.get $ptr)))
      (local.set $table (i32.add (local.get $ptr) (i32.const 40)))
      (local.set $heads (i32.add (local.get $table) (i32.and (i32.const -8)
        (i32.add (i32.const 7) (i32.mul (i32.const 12) (i32.add (i32.const 1) (local.get $count)))))))
      (local.set $i (i32.const 0))
      (loop $record
        (local.set $head (i32.add (local.get $heads) (i32.sub
          (i32.load offset=4 (i32.add (local.get $table) (i32.mul (i32.const 12) (local.get $i))))
          (i32.load offset=24 (local.get $ptr)))))
        (local.set $tag (i32.add (local.get $head) (i32.load16_u offset=4 (local.get $head))))
        (if (i32.and (i32.eq (i32.const 4) (i32.load16_u offset=30 (local.get $head)))
            (i32.eq (i32.load (local.get $tag)) (i32.const 0x7065656b)))
          (then (i32.store8 (i32.add (i32.const 256) (i32.shr_u (local.get $bit) (i32.const 3)))
            (i32.or (i32.load8_u (i32.add (i32.const 256) (i32.shr_u (local.get $bit) (i32.const 3))))
              (i32.shl (i32.const 1) (i32.and (local.get $bit) (i32.const 7)))))))
        (local.set $bit (i32.add (local.get $bit) (i32.const 1)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $record (i32.lt_u (local.get $i) (local.get $count))))
      (local.set $ptr (i32.add (local.get $heads) (i32.add (i32.load offset=28 (local.get $ptr))
        (i32.and (i32.const -8) (i32.add (i32.const 7) (i32.load offset=36 (local.get $ptr)))))))
      (br $batch)))
    (call $answer (i32.shr_u (i32.add (local.get $bit) (i32.const 7)) (i32.const 3)))"#;

impl Guest {
    /// Keeps the records with the tag `keep`.
    pub(crate) fn keep_tagged() -> Self {
        Self::default().check(KEEP_TAGGED)
    }

    pub(crate) fn check(mut self, body: &str) -> Self {
        self.check = body.into();
        self
    }

    pub(crate) fn configure(mut self, body: &str) -> Self {
        self.configure = body.into();
        self
    }

    pub(crate) fn describe(mut self, body: &str) -> Self {
        self.describe = body.into();
        self
    }

    pub(crate) fn realloc(mut self, body: &str) -> Self {
        self.realloc = body.into();
        self
    }

    pub(crate) fn fields(mut self, fields: &str) -> Self {
        self.fields += fields;
        self
    }

    pub(crate) fn memory(mut self, pages: &str) -> Self {
        self.memory = pages.into();
        self
    }

    /// Adds definitions to the component.
    pub(crate) fn component(mut self, definitions: &str) -> Self {
        self.component = definitions.into();
        self
    }

    /// Exports the same functions under another interface's name.
    pub(crate) fn interface(mut self, name: &str) -> Self {
        self.interface = name.into();
        self
    }

    /// Changes one byte of the manifest.
    pub(crate) fn manifest(mut self, at: usize, byte: u8) -> Self {
        self.manifest[at] = byte;
        self
    }

    /// Gives `check` a post-return function.
    pub(crate) fn post_return(mut self, body: &str) -> Self {
        self.fields += &format!(r#"(func (export "free") (param i32) {body})"#);
        self.check_options = r#"(post-return (core func $i "free"))"#.into();
        self
    }

    /// Declares that it reads no bodies.
    pub(crate) fn heads_only(self) -> Self {
        self.manifest(8, 0)
    }

    /// The core module in text.
    pub(crate) fn module(&self) -> String {
        let Self {
            memory,
            fields,
            realloc,
            describe,
            configure,
            check,
            ..
        } = self;
        let manifest: String = self
            .manifest
            .iter()
            .map(|byte| format!("\\{byte:02x}"))
            .collect();
        format!(
            r#"(core module $m
    (memory (export "memory") {memory})
    (global $next (mut i32) (i32.const 4096))
    (data (i32.const 64) "{manifest}")
    (func $realloc (export "realloc") (param $old i32) (param $old_len i32) (param $align i32) (param $new_len i32) (result i32)
      {realloc})
    (func $answer (param $len i32) (result i32)
      (global.set $next (i32.const 4096))
      (i32.store8 (i32.const 128) (i32.const 0))
      (i32.store (i32.const 132) (i32.const 256))
      (i32.store (i32.const 136) (local.get $len))
      (i32.const 128))
    (func (export "describe") (result i32) {describe})
    (func (export "configure") (param $ptr i32) (param $len i32) (result i32) {configure})
    (func (export "check") (param $ptr i32) (param $len i32) (result i32) {check})
    {fields})"#
        )
    }

    /// The component in text.
    pub(crate) fn text(&self) -> String {
        let (module, options) = (self.module(), &self.check_options);
        let (component, interface) = (&self.component, &self.interface);
        format!(
            r#"(component
  {module}
  (core instance $i (instantiate $m))
  (type $needs (record (field "tag" bool) (field "group" bool) (field "keys" bool)
    (field "properties" bool) (field "body" bool)))
  (type $manifest (record (field "layout" u32) (field "needs" $needs) (field "stateful" bool)))
  (func $describe (result $manifest)
    (canon lift (core func $i "describe") (memory (core memory $i "memory"))))
  (func $configure (param "config" (list u8)) (result (result (error string)))
    (canon lift (core func $i "configure") (memory (core memory $i "memory"))
      (realloc (core func $i "realloc"))))
  (func $check (param "batch" (list u8)) (result (result (list u8) (error string)))
    (canon lift (core func $i "check") (memory (core memory $i "memory"))
      (realloc (core func $i "realloc")) {options}))
  (instance $filter (export "needs" (type $needs)) (export "manifest" (type $manifest))
    (export "describe" (func $describe)) (export "configure" (func $configure))
    (export "check" (func $check)))
  (export "{interface}" (instance $filter))
  {component})"#
        )
    }

    /// The component.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        binary(&self.text())
    }
}

pub(crate) fn binary(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}
