//! tls stub
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpstreamTls { pub ca: Option<std::path::PathBuf>, pub server_name: Option<String> }
#[derive(Debug, thiserror::Error)] #[error("tls")] pub struct TlsError;
impl From<rustls_pki_types::InvalidDnsNameError> for TlsError { fn from(_: rustls_pki_types::InvalidDnsNameError) -> Self { Self } }
pub fn client_config(_p: &UpstreamTls) -> Result<std::sync::Arc<rustls::ClientConfig>, TlsError> { Err(TlsError) }
