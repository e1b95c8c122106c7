use super::record::Report;
pub fn svg(_: &Report) -> String {
    String::new()
}
