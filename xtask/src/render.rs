//! Renders the manifests of Envoy, Istio and Kong from one configuration document.
