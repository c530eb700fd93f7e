//! The guards of images: whose they are, that they are what they are called, that they stay while they are used.

use super::Guard;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "pis3 a tenant has each layer that it is given",
        file: "execution-worker/src/image.rs",
        text: "            layers.iter().map(|layer| layer.blob.hex() + &layer.diff_id.hex()).collect();",
        without: "            layers.iter().map(|layer| layer.diff_id.hex()).collect();",
        tests: "worker: registry::",
    },
    Guard {
        name: "pis3 a pulled layer is the one that was named",
        file: "execution-worker/src/image/registry.rs",
        text: "        oci::check_digest(\"a layer\", layer.blob, digest)?;\n",
        without: "",
        tests: "worker: registry::",
    },
    Guard {
        name: "ee17 a pull that is late is no fault of the image",
        file: "execution-worker/src/driver/local.rs",
        text: "return Err(Error::ImageAway(format!(",
        without: "return Err(Error::Image(format!(",
        tests: "worker: pulls::ee17",
    },
    Guard {
        name: "pis3 what is in use is not evicted",
        file: "execution-worker/src/image/cache.rs",
        text: "Arc::strong_count(&entry.held) == 1",
        without: "Arc::strong_count(&entry.held) > 0",
        tests: "worker: registry::what_is_kept",
    },
];
