//! The templates of the role matrix as a tree of segments, so that a path is read once, however many there are.
//! Knows neither roles nor methods' meaning.

use std::collections::BTreeMap;

/// One segment's place in the tree.
#[derive(Debug, Default)]
pub(super) struct Node {
    literals: BTreeMap<Box<str>, Node>,
    any: Option<Box<Node>>,
    /// What ends here: method and place in the matrix.
    routes: Vec<(Box<str>, usize)>,
}

impl Node {
    pub(super) fn add(&mut self, method: &str, template: &str, index: usize) {
        let mut node = self;
        for segment in segments(template) {
            node = if segment.starts_with('{') {
                node.any.get_or_insert_default()
            } else {
                node.literals.entry(segment.into()).or_default()
            };
        }
        node.routes.push((method.into(), index));
    }

    /// Hands every route whose template fits `path` to `visit`. At most two ways part at a segment.
    pub(super) fn visit<'n>(&'n self, path: &str, visit: &mut impl FnMut(&'n str, usize)) {
        let rest = path.strip_prefix('/').unwrap_or(path);
        self.descend(Some(rest), visit);
    }

    fn descend<'n>(&'n self, rest: Option<&str>, visit: &mut impl FnMut(&'n str, usize)) {
        let Some(rest) = rest else {
            self.routes.iter().for_each(|(method, index)| visit(method, *index));
            return;
        };
        let (segment, rest) = match rest.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (rest, None),
        };
        if let Some(node) = self.literals.get(segment) {
            node.descend(rest, visit);
        }
        if let Some(node) = self.any.as_deref().filter(|_| !segment.is_empty()) {
            node.descend(rest, visit);
        }
    }
}

pub(super) fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}
