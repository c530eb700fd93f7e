//! Builds OCI image layouts of the sample agents.
