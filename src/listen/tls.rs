//! tls stub
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsParams { pub cert: std::path::PathBuf, pub key: std::path::PathBuf, pub client_ca: Option<std::path::PathBuf> }
#[derive(Debug, thiserror::Error)] #[error("tls")] pub struct TlsError;
pub fn server_config(_p: &TlsParams) -> Result<std::sync::Arc<rustls::ServerConfig>, TlsError> { Err(TlsError) }
