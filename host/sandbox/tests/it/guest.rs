//! Guests: core modules written as text, made components of a world of the contract.

use wit_component::ComponentEncoder;
use wit_component::StringEncoding;
use wit_parser::Resolve;

const CONTRACT: &str = include_str!("../../../../wit/plugin.wit");

/// Where a guest's answer is: all zeroes, which is "ok".
pub const OK: &str = "(i32.const 16)";

/// A guest in the making.
#[derive(Clone)]
pub struct Guest {
    /// Imports of the core module.
    pub imports: String,
    /// Globals, data, functions, start sections.
    pub items: String,
    /// The body of `handle`, or of `transform` where the world has it: `(param $event i32) (result i32)`.
    pub body: String,
    /// The body of `cabi_realloc`: `(param $old i32) (param $old_size i32) (param $align i32) (param $size i32)`.
    pub realloc: String,
    /// The body of the function that is called after the answer was taken: `(param $answer i32)`.
    pub post: String,
    /// Pages of memory.
    pub pages: u32,
    /// What the world has beside the contract's imports.
    pub world: String,
    /// Packages that the world mentions.
    pub packages: Vec<String>,
    /// How it writes its strings.
    pub encoding: StringEncoding,
}

impl Guest {
    /// A handler with this body.
    pub fn handler(body: &str) -> Self {
        Self {
            imports: String::new(),
            items: String::new(),
            body: body.to_owned(),
            // Everything the host puts there lives until the next call.
            realloc: "(local $at i32)
                (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
                (global.set $next (i32.add (local.get $at) (local.get $size)))
                (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
                    (then (drop (memory.grow (i32.const 16)))))
                (local.get $at)"
                .to_owned(),
            post: "(global.set $next (i32.const 8192))".to_owned(),
            pages: 2,
            world: "export bulkhead:plugin/handler@0.1.0;".to_owned(),
            packages: Vec::new(),
            encoding: StringEncoding::UTF8,
        }
    }

    /// A transformer with this body.
    pub fn transformer(body: &str) -> Self {
        Self { world: "export bulkhead:plugin/transformer@0.1.0;".to_owned(), ..Self::handler(body) }
    }

    /// With a function of the contract imported under its own name.
    pub fn import(mut self, interface: &str, function: &str, core: &str) -> Self {
        self.imports +=
            &format!("(import \"bulkhead:plugin/{interface}@0.1.0\" \"{function}\" (func ${function} {core}))\n");
        self
    }

    /// With a function of another package imported.
    pub fn import_from(mut self, interface: &str, function: &str, name: &str, core: &str) -> Self {
        self.imports += &format!("(import \"{interface}\" \"{function}\" (func ${name} {core}))\n");
        self
    }

    /// With globals, data or functions.
    pub fn with(mut self, items: &str) -> Self {
        self.items += items;
        self
    }

    /// With bytes at a place in memory.
    pub fn data(self, at: u32, text: &str) -> Self {
        self.with(&format!("(data (i32.const {at}) \"{text}\")\n"))
    }

    /// The core module as text.
    fn core(&self) -> String {
        let export =
            if self.world.contains("transformer") { "transformer@0.1.0#transform" } else { "handler@0.1.0#handle" };
        let Self { imports, items, body, realloc, post, pages, .. } = self;
        format!(
            r#"(module
                {imports}
                (memory (export "memory") {pages})
                (global $next (mut i32) (i32.const 8192))
                {items}
                (func (export "cabi_realloc")
                    (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
                    {realloc})
                (func (export "bulkhead:plugin/{export}") (param $event i32) (result i32) {body})
                (func (export "cabi_post_bulkhead:plugin/{export}") (param $answer i32) {post})
            )"#
        )
    }

    /// The core module.
    pub fn module(&self) -> Vec<u8> {
        let core = self.core();
        wat::parse_str(&core).unwrap_or_else(|error| panic!("the guest is not valid: {error}\n{core}"))
    }

    /// The component.
    pub fn component(&self) -> Vec<u8> {
        self.component_of(self.module())
    }

    /// The component with this core module instead of its own.
    pub fn component_of(&self, mut module: Vec<u8>) -> Vec<u8> {
        let mut resolve = Resolve::default();
        resolve.push_str("plugin.wit", CONTRACT).expect("because the contract is valid");
        for (at, package) in self.packages.iter().enumerate() {
            resolve.push_str(format!("package{at}.wit"), package).expect("because the package is valid");
        }
        let world =
            format!("package test:guest; world guest {{ include bulkhead:plugin/imports@0.1.0; {} }}", self.world);
        let package = resolve.push_str("world.wit", &world).expect("because the world is valid");
        let world = resolve.select_world(&[package], Some("guest")).expect("because there is one");
        wit_component::embed_component_metadata(&mut module, &resolve, world, self.encoding)
            .expect("because the world can be written");
        ComponentEncoder::default()
            .module(&module)
            .and_then(|encoder| encoder.validate(false).encode())
            .unwrap_or_else(|error| panic!("the guest is no component: {error:?}"))
    }
}

/// A component as text.
pub fn raw(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("the component is not valid: {error}"))
}

/// A handler that does nothing.
pub fn idle() -> Vec<u8> {
    Guest::handler(OK).component()
}
