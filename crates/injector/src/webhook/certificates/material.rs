//! The content of the Secret: up to three CAs, each with the secret of a path, and the serving certificate.

use super::decide::{State, Step, Times};
use super::issue::{Pair, ca, is_trusted, presented, serving, validity};
use super::paths::{Secret, Secrets};
use std::collections::BTreeMap;

/// The data of a Secret.
pub(super) type Data = BTreeMap<String, String>;

/// The certificates; missing or unusable ones are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Material {
    pub(super) ca: Option<Pair>,
    pub(super) next: Option<Pair>,
    /// The certificate without its key, since it no longer signs.
    pub(super) old: Option<String>,
    pub(super) serving: Option<Pair>,
    pub(super) secrets: Secrets,
}

impl Material {
    /// Reads the data of the Secret.
    pub(super) fn read(data: &Data) -> Self {
        let text = |name: &str| data.get(name).cloned();
        let pair = |certificate: &str, key: &str| {
            let pair = Pair { certificate: text(certificate)?, key: text(key)? };
            presented(&pair).is_ok().then_some(pair)
        };
        let secret = |name: &str| text(name).and_then(|text| Secret::read(&text));
        let secrets = Secrets { current: secret("signing.path"), next: secret("next.path"), old: secret("old.path") };
        Self {
            // Both are published together, so one without the other is of no use.
            ca: pair("signing.crt", "signing.key").filter(|_| secrets.current.is_some()),
            next: pair("next.crt", "next.key"),
            old: text("old.crt").filter(|old| validity(old).is_some()),
            serving: pair("tls.crt", "tls.key"),
            secrets,
        }
    }

    /// The data of the Secret.
    pub(super) fn data(&self) -> Data {
        let mut data = Data::new();
        let mut put = |name: &str, text: &str| drop(data.insert(name.to_owned(), text.to_owned()));
        for (name, pair) in [("signing", &self.ca), ("next", &self.next), ("tls", &self.serving)] {
            if let Some(pair) = pair {
                put(&format!("{name}.crt"), &pair.certificate);
                put(&format!("{name}.key"), &pair.key);
            }
        }
        if let Some(old) = &self.old {
            put("old.crt", old);
        }
        let Secrets { current, next, old } = &self.secrets;
        for (name, secret) in [("signing", current), ("next", next), ("old", old)] {
            if let Some(secret) = secret {
                put(&format!("{name}.path"), secret.text());
            }
        }
        put("ca.crt", &self.bundle());
        data
    }

    /// The CAs that clients must trust, as PEM.
    pub(super) fn bundle(&self) -> String {
        let certificate = |pair: &Option<Pair>| pair.as_ref().map(|pair| pair.certificate.clone());
        [certificate(&self.ca), certificate(&self.next), self.old.clone()].into_iter().flatten().collect()
    }

    /// The state for `decide`.
    pub(super) fn state(&self, names: &[String], now: i64, published: Option<i64>) -> State {
        let of = |pair: &Pair| validity(&pair.certificate);
        let signed = |ca: &Pair| {
            self.serving
                .as_ref()
                .filter(|serving| names.iter().all(|name| is_trusted(&serving.certificate, &ca.certificate, name, now)))
        };
        State {
            ca: self.ca.as_ref().and_then(of),
            next: self.next.as_ref().and_then(of),
            old: self.old.as_deref().and_then(validity),
            serving: self.ca.as_ref().and_then(signed).and_then(of),
            published,
        }
    }

    /// Carries out a step.
    ///
    /// # Errors
    /// If a key cannot be generated.
    pub(super) fn take(self, step: Step, names: &[String], now: i64, times: &Times) -> Result<Self, rcgen::Error> {
        let signed = |by: &Option<Pair>| match by {
            Some(by) => serving(by, names, now, times.serving).map(Some),
            None => Ok(None),
        };
        Ok(match step {
            Step::Rest => self,
            Step::Begin => {
                let ca = Some(ca(now, times.ca)?);
                let secrets = Secrets { current: Some(Secret::random()), ..Secrets::default() };
                Self { serving: signed(&ca)?, ca, secrets, ..Self::default() }
            }
            Step::SignServing => Self { serving: signed(&self.ca)?, ..self },
            Step::PrepareNext => {
                let secrets = Secrets { next: Some(Secret::random()), ..self.secrets };
                Self { next: Some(ca(now, times.ca)?), secrets, ..self }
            }
            Step::Promote => {
                let Secrets { current, next, .. } = self.secrets;
                let secrets = match next {
                    None => Secrets { current, ..Secrets::default() },
                    next => Secrets { current: next, next: None, old: current },
                };
                let old = self.ca.map(|ca| ca.certificate);
                Self { serving: signed(&self.next)?, old, ca: self.next, next: None, secrets }
            }
            Step::DropOld => Self { old: None, secrets: Secrets { old: None, ..self.secrets }, ..self },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::decide::decide;
    use super::*;

    const TIMES: Times = Times { serving: 86_400, ca: 864_000, settle: 60, grace: 300 };
    const NAME: &str = "ebb-injector.ebb-system.svc";

    /// Two replicas that read the Secret every 10 s, and an API server that uses a new bundle after 50 s.
    struct Cluster {
        secret: Data,
        published: (i64, String),
        trusted: String,
        served: [Option<String>; 2],
        /// The path that the API server uses, and those that each replica accepts.
        path: (i64, String, String),
        accepted: [Vec<String>; 2],
        now: i64,
        hasty: bool,
    }

    impl Cluster {
        /// Simulates ten seconds: the leader takes a step, a replica reads the Secret, the API server calls the
        /// webhook.
        fn tick(&mut self) -> Step {
            let names = [NAME.to_owned()];
            let material = Material::read(&self.secret);
            let bundle = material.bundle();
            let published = Some(self.published.0).filter(|_| self.published.1 == bundle && !bundle.is_empty());
            // The mutant: the bundle counts as known as soon as it is written.
            let published = published.map(|since| if self.hasty { since - 3_600 } else { since });
            let step = decide(self.now, &material.state(&names, self.now, published), &TIMES);
            let material = material.take(step, &names, self.now, &TIMES).unwrap();
            if self.published.1 != material.bundle() {
                self.published = (self.now, material.bundle());
            }
            self.secret = material.data();
            let replica = usize::try_from(self.now / 10 % 2).unwrap();
            let material = Material::read(&self.secret);
            self.accepted[replica] = material.secrets.paths();
            self.served[replica] = material.serving.map(|serving| serving.certificate);
            let path = material.secrets.current.map_or_else(String::new, |secret| secret.path());
            if self.path.1 != path {
                self.path = (self.now, path, std::mem::take(&mut self.path.2));
            }
            self.now += 10;
            if self.now >= self.published.0 + 50 {
                self.trusted.clone_from(&self.published.1);
            }
            if self.now >= self.path.0 + 50 {
                self.path.2.clone_from(&self.path.1);
            }
            step
        }

        fn is_refused(&self) -> bool {
            let served = self.served.iter().flatten();
            let is_unknown =
                |paths: &Vec<String>| [&self.path.1, &self.path.2].iter().any(|path| !paths.contains(path));
            served.into_iter().any(|serving| !is_trusted(serving, &self.trusted, NAME, self.now))
                || self.accepted.iter().any(is_unknown)
        }
    }

    /// Runs two CA rotations; returns the steps and the number of refused calls.
    fn rotate(hasty: bool) -> (Vec<Step>, u32) {
        let start = 1_800_000_000;
        let nothing = (start, String::new());
        let mut cluster = Cluster {
            secret: Data::new(),
            published: nothing,
            trusted: String::new(),
            served: [None, None],
            path: (start, String::new(), String::new()),
            accepted: [Vec::new(), Vec::new()],
            now: start,
            hasty,
        };
        let (mut steps, mut refused) = (Vec::new(), 0);
        for _ in 0..8 {
            steps.push(cluster.tick()); // until the first bundle is known, nothing can be trusted
        }
        while steps.iter().filter(|step| **step == Step::DropOld).count() < 2 {
            let step = cluster.tick();
            if step == Step::Rest {
                // Skip idle time; the last steps have checked for refusals.
                let quiet = cluster.now > cluster.published.0 + 400;
                cluster.now += if quiet { 3_600 } else { 0 };
            }
            steps.push(step);
            refused += u32::from(cluster.is_refused());
        }
        steps.retain(|step| *step != Step::Rest);
        (steps, refused)
    }

    #[test]
    fn no_call_is_refused_while_cas_change() {
        let (steps, refused) = rotate(false);
        assert_eq!((steps[0], refused), (Step::Begin, 0), "{steps:?}");
        assert_eq!(steps.iter().filter(|step| **step == Step::Promote).count(), 2, "{steps:?}");
        assert!(!steps[1..].contains(&Step::Begin), "{steps:?}");
    }

    #[test]
    fn the_secret_of_the_path_changes_with_the_ca() {
        let names = [NAME.to_owned()];
        let take = |material: &Material, step| material.clone().take(step, &names, 1_800_000_000, &TIMES).unwrap();
        let first = take(&Material::default(), Step::Begin);
        let prepared = take(&first, Step::PrepareNext);
        assert_eq!(prepared.secrets.current, first.secrets.current, "replicas must know the next one first");
        let promoted = take(&prepared, Step::Promote);
        assert_eq!(promoted.secrets.current, prepared.secrets.next);
        assert_eq!(promoted.secrets.old, first.secrets.current, "API servers may use it yet");
        let dropped = take(&promoted, Step::DropOld);
        assert_eq!(dropped.secrets.paths(), [promoted.secrets.current.unwrap().path()]);
        assert_eq!(take(&first, Step::SignServing).secrets, first.secrets);
    }

    #[test]
    fn a_leader_that_does_not_wait_for_the_bundle_is_found_out() {
        assert!(rotate(true).1 > 0);
    }

    #[test]
    fn a_corrupted_or_foreign_secret_is_as_good_as_an_empty_one() {
        let names = [NAME.to_owned()];
        let (now, foreign) = (1_800_000_000, ca(1_800_000_000, 1000).unwrap());
        let material = Material::default().take(Step::Begin, &names, now, &TIMES).unwrap();
        assert_eq!(decide(now, &material.state(&names, now, None), &TIMES), Step::Rest);
        let mut data = material.data();
        for (name, text) in [("signing.key", "garbage"), ("signing.path", "../short")] {
            let whole = data.insert(name.to_owned(), text.to_owned()).unwrap();
            assert_eq!(decide(now, &Material::read(&data).state(&names, now, None), &TIMES), Step::Begin, "{name}");
            data.insert(name.to_owned(), whole);
        }
        let other = Material { ca: Some(foreign), ..material.clone() };
        assert_eq!(
            decide(now, &other.state(&names, now, None), &TIMES),
            Step::SignServing,
            "not its serving certificate"
        );
        let renamed = ["elsewhere.svc".to_owned()];
        assert_eq!(decide(now, &material.state(&renamed, now, None), &TIMES), Step::SignServing, "not its name");
        assert_eq!(Material::read(&material.data()), material);
    }
}
