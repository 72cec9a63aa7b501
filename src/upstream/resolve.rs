//! temporary until the resolver lands
use std::net::SocketAddr; use std::sync::Arc;
/// Resolver.
pub struct Resolver;
impl Resolver {
    /// Resolve.
    pub async fn resolve(&self, host: &str, port: u16) -> std::io::Result<Arc<[SocketAddr]>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}
