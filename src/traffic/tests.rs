use super::*;

#[test]
fn lanes_add_up() {
    let traffic = Traffic::default();
    let (one, two) = (traffic.lane(), traffic.lane());
    one.ended(Method::Get, Code::Ok);
    two.ended(Method::Get, Code::Ok);
    two.ended(Method::Set, Code::ResourceExhausted);
    two.refused(Reason::NoSpace);
    one.connection(Edge::Begun);
    two.connection(Edge::Begun);
    two.connection(Edge::Ended);
    one.call(Edge::Begun);
    let totals = traffic.totals();
    assert_eq!(totals.ended[Method::Get as usize][0], 2);
    assert_eq!(totals.ended[Method::Set as usize][Code::ResourceExhausted as usize], 1);
    assert_eq!(totals.refusals.iter().sum::<u64>(), 1);
    assert_eq!((totals.accepted_connections, totals.open_connections, totals.open_calls), (2, 1, 1));
}

#[test]
fn durations_fall_into_the_bucket_that_holds_them() {
    let lane = Traffic::default();
    let one = lane.lane();
    for micros in [1, 10, 11, 900, 1_000_000] {
        one.took(Method::Get, Outcome::Ok, Duration::from_micros(micros));
    }
    one.took(Method::Get, Outcome::Refused, Duration::from_micros(20));
    one.took(Method::Pipe, Outcome::Ok, Duration::from_secs(9));
    let totals = lane.totals();
    let [get, refused] = totals.durations[Method::Get as usize];
    assert_eq!((get.buckets[0], get.buckets[1], get.buckets[6], get.buckets[12]), (2, 1, 1, 1));
    assert_eq!((get.count(), get.within_nanos(500), get.within_nanos(990)), (5, Some(25_000), None));
    assert_eq!(get.since(&get).within_nanos(500), None);
    assert_eq!((refused.count(), refused.sum_nanos, get.and(&refused).count()), (1, 20_000, 6));
    assert_eq!(totals.durations[Method::Pipe as usize][0].count(), 0, "a stream lasts as long as its client likes");
}

#[test]
fn methods_stand_where_their_number_says_and_paths_name_them() {
    for (at, method) in Method::VARIANTS.iter().copied().enumerate() {
        assert_eq!(at, method as usize);
    }
    assert_eq!([Outcome::Ok as usize, Outcome::Refused as usize], [0, 1]);
    assert_eq!(Method::of("/ebb.v1.CacheService/BatchGet"), Method::BatchGet);
    assert_eq!(Method::of("/ebb.v1.AdminService/GetStats"), Method::Other);
}
