//! Patterns of `matches`: regular expressions that take linear time on any text, and are bounded in memory.
//!
//! They run as automata whose states are made on the way, in a cache of fixed size. A pattern and a text that keep
//! on needing new states are given up, which counts as running over the budget.

use regex_automata::Input;
use regex_automata::hybrid::dfa::Cache;
use regex_automata::hybrid::dfa::Config;
use regex_automata::hybrid::dfa::DFA;
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;

use crate::rule::expression::Fail;
use crate::rule::expression::PATTERN_BYTES_MAX;

/// The largest automaton before its states are made; `\w` takes about a hundredth of it.
const NFA_BYTES_MAX: usize = 256 << 10;
/// The memory for states while a text is searched.
const CACHE_BYTES: usize = 256 << 10;
/// How often that memory may be emptied and filled again within one search.
const CACHE_CLEARS_MAX: usize = 3;

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    automaton: DFA,
}

impl Pattern {
    /// Compiles the text of a pattern, or says why not.
    pub fn compile(pattern: &str) -> Result<Self, String> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(format!("the pattern is {} bytes long; the limit is {PATTERN_BYTES_MAX}", pattern.len()));
        }
        let config = Config::new()
            .cache_capacity(CACHE_BYTES)
            .skip_cache_capacity_check(true)
            .unicode_word_boundary(true)
            .minimum_cache_clear_count(Some(CACHE_CLEARS_MAX));
        DFA::builder()
            .configure(config)
            .syntax(syntax::Config::new().nest_limit(32))
            .thompson(thompson::Config::new().nfa_size_limit(Some(NFA_BYTES_MAX)))
            .build(pattern)
            .map(|automaton| Self { automaton })
            .map_err(|error| reason(&error))
    }

    /// Memory for searches with this pattern.
    pub fn cache(&self) -> Cache {
        self.automaton.create_cache()
    }

    /// Is there a match anywhere in `text`?
    pub fn is_in(&self, text: &str, cache: &mut Cache) -> Result<bool, Fail> {
        let input = Input::new(text).earliest(true);
        match self.automaton.try_search_fwd(cache, &input) {
            Ok(found) => Ok(found.is_some()),
            Err(error) => match error.kind() {
                regex_automata::MatchErrorKind::Quit { .. } => {
                    Err(Fail::Impossible("`matches` with `\\b` works on ASCII text only".to_owned()))
                }
                _ => Err(Fail::OverBudget),
            },
        }
    }
}

/// The innermost reason: the crate's errors say where they happened, then why.
fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    // Syntax errors are drawn over several lines; the last one says what is wrong.
    text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
}
