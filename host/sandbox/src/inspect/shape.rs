//! The shape of a component, counted without understanding it: an early exit with a good message for what would
//! choke the compiler. The limits of the compile worker are the control; these numbers are ten times what the
//! largest of eight ordinary components has (compiled JavaScript engines and Python among them).

use wasmparser::ComponentImport;
use wasmparser::FunctionBody;
use wasmparser::Instance;
use wasmparser::MemoryType;
use wasmparser::Operator;
use wasmparser::Parser;
use wasmparser::Payload;
use wasmparser::TableType;

use super::Refused;
use crate::engine::CORE_INSTANCES;
use crate::engine::MEMORIES;
use crate::engine::TABLE_ELEMENTS;
use crate::options::Pool;

/// Functions in all modules. Ordinary: 13,480.
const FUNCTIONS_MAX: u64 = 50_000;
/// Variables of one function. Ordinary: 271.
const LOCALS_MAX: u64 = 5_000;
/// Bytes of one function. Ordinary: 416 KiB.
const BODY_MAX: usize = 1 << 20;
/// Instructions of one function. Ordinary: 166,865.
const OPERATORS_MAX: u64 = 600_000;
/// Blocks of one function. Ordinary: 4,216.
const BLOCKS_MAX: u64 = 20_000;
/// Variables times blocks of one function, which is what the register allocator's memory grows with. Ordinary:
/// 194,228.
const WEAVE_MAX: u64 = 2_000_000;
/// Blocks within blocks. Ordinary: 781.
const NESTING_MAX: usize = 4_000;
/// Bytes of a page of memory.
const PAGE: u64 = 64 << 10;

/// An import of the component: its name, and whether it is an interface.
pub(super) struct ImportName {
    pub name: String,
    pub is_interface: bool,
}

/// Counts, and gives back the names of the imports.
pub(super) fn check(wasm: &[u8], pool: &Pool) -> Result<Vec<ImportName>, Refused> {
    let mut counts = Counts::default();
    let mut imports = Vec::new();
    // How deep the section stands: imports of nested components are not the host's to give.
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(|error| malformed(&error))? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    imports.push(import_name(&import.map_err(|error| malformed(&error))?));
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    counts.memory(&memory.map_err(|error| malformed(&error))?, pool)?;
                }
            }
            Payload::TableSection(section) => {
                for table in section {
                    counts.table(&table.map_err(|error| malformed(&error))?.ty)?;
                }
            }
            Payload::InstanceSection(section) => {
                for instance in section {
                    counts.instance(&instance.map_err(|error| malformed(&error))?)?;
                }
            }
            Payload::CodeSectionStart { count, .. } => counts.functions(u64::from(count))?,
            Payload::CodeSectionEntry(body) => function(&body)?,
            _ => {}
        }
    }
    Ok(imports)
}

fn import_name(import: &ComponentImport<'_>) -> ImportName {
    ImportName {
        name: import.name.name.to_owned(),
        is_interface: matches!(import.ty, wasmparser::ComponentTypeRef::Instance(_)),
    }
}

#[derive(Default)]
struct Counts {
    functions: u64,
    memories: u32,
    instances: u32,
}

impl Counts {
    fn functions(&mut self, more: u64) -> Result<(), Refused> {
        self.functions += more;
        at_most("functions", "functions", self.functions, FUNCTIONS_MAX)
    }

    fn memory(&mut self, memory: &MemoryType, pool: &Pool) -> Result<(), Refused> {
        self.memories += 1;
        at_most("memories", "linear memories", u64::from(self.memories), u64::from(MEMORIES))?;
        let bytes = memory.initial.saturating_mul(PAGE);
        let limit = u64::try_from(pool.memory_max).unwrap_or(u64::MAX);
        if bytes > limit {
            return Err(Refused::upload(
                "memory",
                format!("it begins with {} MiB of memory; a plugin may have {}.", bytes >> 20, limit >> 20),
                "Lower the initial memory, or ask the operator for a larger plan.",
            ));
        }
        Ok(())
    }

    fn table(&mut self, table: &TableType) -> Result<(), Refused> {
        let limit = u64::try_from(TABLE_ELEMENTS).unwrap_or(u64::MAX);
        at_most("table", "elements in one table", table.initial, limit)
    }

    fn instance(&mut self, instance: &Instance<'_>) -> Result<(), Refused> {
        if matches!(instance, Instance::Instantiate { .. }) {
            self.instances += 1;
        }
        at_most("instances", "core instances", u64::from(self.instances), u64::from(CORE_INSTANCES))
    }
}

/// Counts one function.
fn function(body: &FunctionBody<'_>) -> Result<(), Refused> {
    let malformed = |error| malformed(&error);
    let range = body.range();
    let size = range.end - range.start;
    if size > BODY_MAX {
        return at_most("body", "bytes in one function", size as u64, BODY_MAX as u64);
    }
    let mut locals = 0_u64;
    for local in body.get_locals_reader().map_err(malformed)? {
        let (count, _) = local.map_err(malformed)?;
        locals += u64::from(count);
    }
    at_most("locals", "variables in one function", locals, LOCALS_MAX)?;
    let (mut operators, mut blocks, mut nesting) = (0_u64, 0_u64, 0_usize);
    let mut reader = body.get_operators_reader().map_err(malformed)?;
    while !reader.eof() {
        operators += 1;
        match reader.read().map_err(malformed)? {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } | Operator::TryTable { .. } => {
                blocks += 1;
                nesting += 1;
                if nesting > NESTING_MAX {
                    return at_most("nesting", "blocks within blocks", nesting as u64, NESTING_MAX as u64);
                }
            }
            Operator::End => nesting = nesting.saturating_sub(1),
            _ => {}
        }
    }
    at_most("operators", "instructions in one function", operators, OPERATORS_MAX)?;
    at_most("blocks", "blocks in one function", blocks, BLOCKS_MAX)?;
    at_most("weave", "variables times blocks in one function", locals.saturating_mul(blocks), WEAVE_MAX)
}

fn at_most(code: &str, what: &str, found: u64, limit: u64) -> Result<(), Refused> {
    if found <= limit {
        return Ok(());
    }
    Err(Refused::upload(
        code,
        format!("it has {found} {what}; at most {limit} are allowed."),
        "Ordinary plugins stay far below. Look for generated code and make it smaller, or split the plugin.",
    ))
}

fn malformed(error: &wasmparser::BinaryReaderError) -> Refused {
    Refused::upload(
        "invalid",
        format!("it is not a valid component: {} (at byte {}).", error.message(), error.offset()),
        "Build it again; if it was made with the current tools, it may have been damaged on the way.",
    )
}
