//! Dotted globs over event types: `*` is one segment, `**` any number of them.

/// A checked pattern over dotted names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    segments: Vec<Segment>,
}

/// A part of a glob between two dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::rule) enum Segment {
    /// This name.
    Exact(String),
    /// `*`: any one name.
    One,
    /// `**`: any number of names, also none.
    Any,
}

/// Why a text is no glob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A segment is empty.
    #[error("`{0}` has an empty segment; segments are separated by single dots")]
    EmptySegment(String),
    /// A star stands beside other characters.
    #[error(
        "`{segment}` in `{pattern}`: `*` and `**` stand for whole segments; for a prefix use `match` with `prefix`"
    )]
    PartialStar {
        /// The segment at fault.
        segment: String,
        /// The whole pattern.
        pattern: String,
    },
    /// More than one `**`.
    #[error("`{0}` has more than one `**`")]
    TwoAny(String),
}

impl Glob {
    /// Reads a pattern. At most one `**`, so that matching is linear.
    pub fn parse(pattern: &str) -> Result<Self, Error> {
        let mut segments = Vec::new();
        for segment in pattern.split('.') {
            segments.push(match segment {
                "" => return Err(Error::EmptySegment(pattern.to_owned())),
                "*" => Segment::One,
                "**" if segments.contains(&Segment::Any) => return Err(Error::TwoAny(pattern.to_owned())),
                "**" => Segment::Any,
                _ if segment.contains('*') => {
                    return Err(Error::PartialStar { segment: segment.to_owned(), pattern: pattern.to_owned() });
                }
                _ => Segment::Exact(segment.to_owned()),
            });
        }
        Ok(Self { segments })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> String {
        let segments: Vec<&str> = self
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Exact(name) => name.as_str(),
                Segment::One => "*",
                Segment::Any => "**",
            })
            .collect();
        segments.join(".")
    }

    /// Its segments.
    pub(in crate::rule) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The name itself, if the pattern has no stars.
    #[must_use]
    pub fn exact(&self) -> Option<String> {
        let names: Option<Vec<&str>> = self
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Exact(name) => Some(name.as_str()),
                Segment::One | Segment::Any => None,
            })
            .collect();
        names.map(|names| names.join("."))
    }

    /// Does every name that `other` matches match here, too? In doubt it says no.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let fits = |wide: &[Segment], narrow: &[Segment]| {
            wide.iter().zip(narrow).all(|(wide, narrow)| match (wide, narrow) {
                (Segment::One, Segment::One | Segment::Exact(_)) => true,
                (wide, narrow) => wide == narrow,
            })
        };
        let any = |glob: &Self| glob.segments.iter().position(|segment| *segment == Segment::Any);
        let Some(at) = any(self) else {
            return any(other).is_none()
                && self.segments.len() == other.segments.len()
                && fits(&self.segments, &other.segments);
        };
        let (head, tail) = (&self.segments[..at], &self.segments[at + 1..]);
        let (begins, ends) = match any(other) {
            Some(at) => (&other.segments[..at], &other.segments[at + 1..]),
            None if other.segments.len() < head.len() + tail.len() => return false,
            None => (&other.segments[..], &other.segments[..]),
        };
        begins.len() >= head.len()
            && ends.len() >= tail.len()
            && fits(head, begins)
            && fits(tail, &ends[ends.len() - tail.len()..])
    }

    /// Does `name` match as a whole?
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let names: Vec<&str> = name.split('.').collect();
        let fits = |pattern: &[Segment], names: &[&str]| {
            pattern.len() == names.len()
                && pattern.iter().zip(names).all(|(segment, name)| match segment {
                    Segment::Exact(exact) => exact == name,
                    Segment::One | Segment::Any => true,
                })
        };
        match self.segments.iter().position(|segment| *segment == Segment::Any) {
            None => fits(&self.segments, &names),
            Some(any) => {
                let (head, tail) = (&self.segments[..any], &self.segments[any + 1..]);
                names.len() >= head.len() + tail.len()
                    && fits(head, &names[..head.len()])
                    && fits(tail, &names[names.len() - tail.len()..])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_segments() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(
                Glob::parse(pattern).expect("because it is a glob").matches(name),
                expected,
                "{pattern} ~ {name}"
            );
        };
        check("orders.created", "orders.created", true);
        check("orders.created", "orders.created.eu", false);
        check("orders.*", "orders.created", true);
        check("orders.*", "orders", false);
        check("orders.*", "orders.created.eu", false);
        check("orders.**", "orders", true);
        check("orders.**", "orders.created.eu", true);
        check("orders.**.eu", "orders.eu", true);
        check("orders.**.eu", "orders.created.big.eu", true);
        check("orders.**.eu", "orders.created.us", false);
        check("**", "anything.at.all", true);
        check("*.created", "orders.created", true);
    }

    #[test]
    fn a_wider_glob_covers_a_narrower_one() {
        let check = |wide: &str, narrow: &str, expected: bool| {
            let glob = |text| Glob::parse(text).expect("because it is a glob");
            assert_eq!(glob(wide).covers(&glob(narrow)), expected, "{wide} covers {narrow}");
        };
        check("orders.created", "orders.created", true);
        check("orders.*", "orders.created", true);
        check("orders.*", "orders.*", true);
        check("orders.created", "orders.*", false);
        check("orders.*", "orders.**", false);
        check("orders.**", "orders", true);
        check("orders.**", "orders.*.eu", true);
        check("orders.**.eu", "orders.**.eu", true);
        check("orders.**.eu", "orders.**", false);
        check("orders.**.eu", "orders.eu", true);
        check("a.**.a", "a", false);
        check("**", "a.**", true);
        check("a.*", "b.*", false);
    }

    #[test]
    fn what_is_no_glob_says_why() {
        assert!(matches!(Glob::parse("orders..x"), Err(Error::EmptySegment(_))));
        assert!(matches!(Glob::parse(""), Err(Error::EmptySegment(_))));
        assert!(matches!(Glob::parse("ord*"), Err(Error::PartialStar { .. })));
        assert!(matches!(Glob::parse("**.a.**"), Err(Error::TwoAny(_))));
    }
}
