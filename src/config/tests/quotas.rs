//! `quota` of a consumer.

use super::*;

#[test]
fn quotas_are_one_or_several_and_one_of_each_length() {
    let shop = |quota: &str| format!("[consumer.shop]\nidentify = {{ network = '10.0.0.0/8' }}\nquota = {quota}\n");
    let quotas = |quota: &str| {
        let [shop] = loaded(&format!("{SMALL}{}", shop(quota))).settings.consumers.try_into().unwrap();
        shop.quotas.into_iter().map(|quota| (quota.limit, quota.per.word())).collect::<Vec<_>>()
    };
    assert_eq!(quotas("{ limit = 5, per = 'day' }"), [(5, "day")]);
    let two = "[{ limit = 90, per = 'month', zone = 'Europe/Stockholm' }, { limit = 5, per = 'hour' }]";
    assert_eq!(quotas(two), [(5, "hour"), (90, "month")]);
    check_added(&shop("{ limit = 5 }"), 3, 9, "needs `per`");
    check_added(&shop("{ limit = 0, per = 'day' }"), 3, 19, "at least 1");
    check_added(&shop("{ limit = 5, per = 'week' }"), 3, 28, "`week` is not possible here");
    check_added(&shop("{ limit = 5, per = 'day', zone = 'Europe/Stokholm' }"), 3, 42, "no time zone");
    check_added(&shop("[{ limit = 5, per = 'day' }, { limit = 6, per = 'day' }]"), 3, 57, "another quota per day");
    check_added(&shop("5"), 3, 9, "an array of tables");
}
