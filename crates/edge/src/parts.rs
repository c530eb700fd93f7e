//! Which steps of the request path a module takes: said by the module, not by the document. Cargo features leave the
//! code of the others out of a build; a part that is left out answers `false` here, and what hangs on it falls away.
//! Knows no steps.

/// The steps of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// All of them.
    Suite,
    /// Those that tell who calls and what that caller may do.
    Auth,
    /// Which API version answers, and how it ends. Before [`Self::Auth`], so that roles are asked about the version
    /// that answers; for that it knows no tenants, and neither pins nor grace.
    Version,
    /// How much the caller may. Behind [`Self::Auth`], which hands the caller over.
    RateLimit,
    /// What is changed of requests and responses beside. Behind the others; without [`Self::Auth`] before it no value
    /// tells of a caller.
    Transform,
}

impl Parts {
    /// Every module's.
    pub const ALL: [Self; 5] =
        [Self::Suite, Self::Auth, Self::Version, Self::RateLimit, Self::Transform];

    /// Whether this build has all that these parts need. A module that had not would let pass what it should refuse.
    pub const fn are_built(self) -> bool {
        match self {
            Self::Suite => cfg!(feature = "suite"),
            Self::Auth => cfg!(feature = "auth"),
            Self::Version => cfg!(feature = "versions"),
            Self::RateLimit => cfg!(feature = "limits"),
            Self::Transform => cfg!(feature = "shapes"),
        }
    }

    /// Whether credentials are judged, and the caller's permissions.
    pub const fn authenticates(self) -> bool {
        cfg!(feature = "auth") && matches!(self, Self::Suite | Self::Auth)
    }

    /// Whether limits are asked and told.
    pub(crate) const fn limits(self) -> bool {
        cfg!(feature = "limits") && matches!(self, Self::Suite | Self::RateLimit)
    }

    /// Whether the version is chosen.
    pub(crate) const fn versions(self) -> bool {
        cfg!(feature = "versions") && matches!(self, Self::Suite | Self::Version)
    }

    /// Whether other origins are let in: by whoever may be the first to refuse.
    pub(crate) const fn shares(self) -> bool {
        matches!(self, Self::Suite | Self::Auth | Self::Version)
    }

    /// Whether transforms, sizes and the envelope are seen to.
    pub(crate) const fn shapes(self) -> bool {
        cfg!(feature = "shapes") && matches!(self, Self::Suite | Self::Transform)
    }

    /// Whether the caller is handed on to modules behind this one.
    pub(crate) const fn hands_over(self) -> bool {
        matches!(self, Self::Auth)
    }
}
