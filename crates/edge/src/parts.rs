//! Which steps of the request path a module takes: said by the module, not by the document. Cargo features leave the
//! code of the others out of a build; a part that is left out answers `false` here, and what hangs on it falls away.
//! Knows no steps.

/// The steps of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// All of them.
    Suite,
    /// Those that tell who calls and what that caller may do: no versions, no limits.
    Auth,
}

impl Parts {
    /// Whether this build has all that these parts need. A module that had not would let pass what it should refuse.
    pub const fn are_built(self) -> bool {
        match self {
            Self::Suite => cfg!(feature = "suite"),
            Self::Auth => true,
        }
    }

    /// Whether limits are asked and told.
    pub(crate) const fn limits(self) -> bool {
        cfg!(feature = "limits") && matches!(self, Self::Suite)
    }

    /// Whether versions are found, and told how they end.
    pub(crate) const fn versions(self) -> bool {
        cfg!(feature = "versions") && matches!(self, Self::Suite)
    }

    /// Whether CORS, transforms, sizes and the envelope are seen to.
    pub(crate) const fn shapes(self) -> bool {
        cfg!(feature = "shapes") && matches!(self, Self::Suite)
    }

    /// Whether the caller is handed on to modules behind this one.
    pub(crate) const fn hands_over(self) -> bool {
        matches!(self, Self::Auth)
    }
}
