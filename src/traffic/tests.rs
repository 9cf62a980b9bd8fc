use super::*;

#[test]
fn threads_add_up() {
    let traffic = Traffic::default();
    traffic.ended(Method::Get, Code::Ok);
    traffic.connection(Edge::Begun);
    traffic.call(Edge::Begun);
    let elsewhere = traffic.clone();
    let other = std::thread::spawn(move || {
        elsewhere.ended(Method::Get, Code::Ok);
        elsewhere.ended(Method::Set, Code::ResourceExhausted);
        elsewhere.refused(Reason::NoSpace);
        elsewhere.connection(Edge::Begun);
        elsewhere.connection(Edge::Ended);
    });
    other.join().unwrap();
    let totals = traffic.totals();
    assert_eq!(totals.ended[Method::Get as usize][0], 2);
    assert_eq!(totals.ended[Method::Set as usize][Code::ResourceExhausted as usize], 1);
    assert_eq!(totals.refusals.iter().sum::<u64>(), 1);
    assert_eq!((totals.accepted_connections, totals.open_connections, totals.open_calls), (2, 1, 1));
}

#[test]
fn durations_fall_into_the_bucket_that_holds_them() {
    let traffic = Traffic::default();
    for micros in [1, 10, 11, 900, 1_000_000] {
        traffic.took(Method::Get, Outcome::Ok, Duration::from_micros(micros));
    }
    traffic.took(Method::Get, Outcome::Refused, Duration::from_micros(20));
    traffic.took(Method::Pipe, Outcome::Ok, Duration::from_secs(9));
    let totals = traffic.totals();
    let [get, refused] = totals.durations[Method::Get as usize];
    assert_eq!((get.buckets[0], get.buckets[1], get.buckets[6], get.buckets[12]), (2, 1, 1, 1));
    assert_eq!((get.count(), get.within_nanos(500), get.within_nanos(990)), (5, Some(25_000), None));
    assert_eq!(get.since(&get).within_nanos(500), None);
    assert_eq!((refused.count(), refused.sum_nanos, get.and(&refused).count()), (1, 20_000, 6));
    assert_eq!(totals.durations[Method::Pipe as usize][0].count(), 0, "a stream lasts as long as its client likes");
}

#[test]
fn methods_stand_where_their_number_says_and_paths_name_them() {
    let numbers = Method::VARIANTS.iter().map(|method| *method as usize);
    assert_eq!(numbers.collect::<Vec<_>>(), (0..Method::VARIANTS.len()).collect::<Vec<_>>());
    assert_eq!([Outcome::Ok as usize, Outcome::Refused as usize], [0, 1]);
    assert_eq!(Method::of("/ebb.v1.CacheService/BatchGet"), Method::BatchGet);
    assert_eq!(Method::of("/ebb.v1.AdminService/GetStats"), Method::Other);
}
