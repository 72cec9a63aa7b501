//! Configuration (temporary).

pub mod diagnostics;
pub mod file;
pub mod settings;
pub mod units;
/// p
#[derive(Debug)]
pub struct Problems(String);
impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Problems {}
/// l
#[derive(Debug, Clone)]
pub struct Loaded {
    /// s
    pub settings: settings::Settings,
    /// w
    pub warnings: Vec<String>,
}
impl From<settings::Settings> for Loaded {
    fn from(settings: settings::Settings) -> Self {
        Self { settings, warnings: vec![] }
    }
}
/// s
pub fn schema() -> serde_json::Value {
    serde_json::Value::Null
}
impl Loaded {
    /// v
    pub fn view(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}
/// p
pub fn parse(_t: &str, _n: &str) -> Result<Loaded, Problems> {
    Err(Problems("not yet".into()))
}
/// l
pub fn load(_p: &std::path::Path) -> Result<Loaded, Problems> {
    Err(Problems("not yet".into()))
}
