//! Shapes: which parts of an event a set of patterns asks about, so that the rest need not be read.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::rule::pattern::Pattern;

/// A place in a shape.
pub type Place = u32;

/// The event as a whole.
pub const ROOT: Place = 0;

/// The union of the paths of many patterns, as a tree.
#[derive(Debug, Clone)]
pub struct Shape {
    places: Vec<Step>,
}

#[derive(Debug, Clone, Default)]
struct Step {
    fields: Fields,
    leaf: bool,
}

/// The fields below a place. Few are compared one by one, many are hashed.
#[derive(Debug, Clone)]
enum Fields {
    Few(Vec<(Box<str>, Place)>),
    Many(HashMap<Box<str>, Place, RandomState>),
}

impl Default for Fields {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

/// Up to how many fields comparing is faster than hashing.
const FEW: usize = 8;

impl Fields {
    fn get(&self, name: &str) -> Option<Place> {
        match self {
            Self::Few(fields) => fields.iter().find(|(known, _)| **known == *name).map(|(_, place)| *place),
            Self::Many(fields) => fields.get(name).copied(),
        }
    }

    fn insert(&mut self, name: &str, place: Place) {
        match self {
            Self::Few(fields) if fields.len() < FEW => fields.push((name.into(), place)),
            Self::Few(fields) => {
                let mut many: HashMap<_, _, RandomState> = std::mem::take(fields).into_iter().collect();
                many.insert(name.into(), place);
                *self = Self::Many(many);
            }
            Self::Many(fields) => {
                fields.insert(name.into(), place);
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Few(fields) => fields.len(),
            Self::Many(fields) => fields.len(),
        }
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self { places: vec![Step::default()] }
    }
}

impl Shape {
    /// The shape of one pattern.
    #[must_use]
    pub fn of(pattern: &Pattern) -> Self {
        let mut shape = Self::default();
        for leaf in pattern.alternatives.iter().flat_map(|alternative| &alternative.leaves) {
            shape.leaf(&leaf.path);
        }
        shape
    }

    /// Adds a path, at whose end there is a leaf.
    pub fn leaf(&mut self, path: &[String]) -> Place {
        let mut place = ROOT;
        for name in path {
            place = match self.field(place, name) {
                Some(known) => known,
                None => {
                    let new = Place::try_from(self.places.len()).unwrap_or(Place::MAX);
                    self.places.push(Step::default());
                    self.places[place as usize].fields.insert(name, new);
                    new
                }
            };
        }
        self.places[place as usize].leaf = true;
        place
    }

    /// The place of a field below a place.
    #[inline]
    #[must_use]
    pub fn field(&self, place: Place, name: &str) -> Option<Place> {
        self.places.get(place as usize)?.fields.get(name)
    }

    /// Does a leaf ask about the value itself?
    #[must_use]
    pub fn is_leaf(&self, place: Place) -> bool {
        self.places.get(place as usize).is_some_and(|step| step.leaf)
    }

    /// How many fields of the value are asked about.
    #[must_use]
    pub fn fields(&self, place: Place) -> usize {
        self.places.get(place as usize).map_or(0, |step| step.fields.len())
    }
}
