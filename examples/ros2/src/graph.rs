//! How rmw_zenoh names things: keys of topics, tokens that make a node visible in the graph, attachments of messages
//! (rmw_zenoh's docs/design.md).

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use xxhash_rust::xxh3::xxh3_128;
use zenoh::Wait;
use zenoh::handlers::{RingChannel, RingChannelHandler};
use zenoh::liveliness::LivelinessToken;
use zenoh::pubsub::Subscriber;
use zenoh::qos::CongestionControl;
use zenoh::sample::Sample;

use crate::messages::MessageType;

/// What stands for a hash where the distribution has none.
const NO_HASH: &str = "TypeHashNotSupported";
/// Qualities of service as tokens have them: reliable, volatile, the last ten; and best effort, volatile, the last one.
const RELIABLE: &str = "::,10:,:,:,,";
const NEWEST: &str = "2::,1:,:,:,,";

/// A node in the graph of a domain, for as long as this lives.
pub struct Node<'s> {
    session: &'s zenoh::Session,
    domain: u32,
    namespace: String,
    name: String,
    hashes: bool,
    entities: u32,
    _token: LivelinessToken,
}

fn wire<T>(result: std::result::Result<T, zenoh::Error>) -> Result<T> {
    result.map_err(|error| anyhow::anyhow!("Zenoh: {error}"))
}

/// Whether ROS allows a name of these parts.
fn check_name(name: &str) -> Result<()> {
    let part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && part.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    ensure!(
        name.split('/').all(part),
        "'{name}' is no name that ROS allows: letters, digits and underscores, parts joined by /"
    );
    Ok(())
}

/// A name with its slashes as tokens have them.
fn mangled(name: &str) -> String {
    name.replace('/', "%")
}

/// What a node is called.
#[derive(Clone, Copy)]
pub struct NodeName<'a> {
    /// "/" or "/robot".
    pub namespace: &'a str,
    pub name: &'a str,
}

impl<'s> Node<'s> {
    /// Puts a node into the graph. Without `hashes` types are named as in ROS 2
    /// Humble, which has no hashes.
    ///
    /// # Errors
    /// When a name is none, or Zenoh refuses.
    pub fn new(
        session: &'s zenoh::Session,
        domain: u32,
        NodeName { namespace, name }: NodeName<'_>,
        hashes: bool,
    ) -> Result<Self> {
        let namespace = format!("/{}", namespace.trim_matches('/'));
        if namespace != "/" {
            check_name(&namespace[1..])?;
        }
        check_name(name)?;
        ensure!(!name.contains('/'), "'{name}' is no node's name: its namespace is an argument of its own");
        let token = format!("@ros2_lv/{domain}/{}/0/0/NN/%/{}/{name}", session.zid(), mangled(&namespace));
        let token = wire(session.liveliness().declare_token(token).wait())?;
        Ok(Self { session, domain, namespace, name: name.to_owned(), hashes, entities: 0, _token: token })
    }

    /// A topic's whole name: "/a" as it is, "a" within the namespace, "~/a" within the node's own.
    ///
    /// # Errors
    /// When it is no name.
    pub fn resolve(&self, topic: &str) -> Result<String> {
        let inner = self.namespace.trim_end_matches('/');
        let whole = match (topic.strip_prefix('/'), topic.strip_prefix("~/")) {
            (Some(_), _) => topic.to_owned(),
            (None, Some(rest)) => format!("{inner}/{}/{rest}", self.name),
            (None, None) => format!("{inner}/{topic}"),
        };
        check_name(&whole[1..])?;
        Ok(whole)
    }

    /// The hash of a type, as this graph has it.
    fn hash(&self, kind: MessageType) -> &'static str {
        if self.hashes { kind.hash } else { NO_HASH }
    }

    /// Announces a publisher or subscriber; returns its token and the text of that.
    fn announce(
        &mut self,
        kind: &str,
        topic: &str,
        message: MessageType,
        quality: &str,
    ) -> Result<(LivelinessToken, String)> {
        self.entities += 1;
        let Self { session, domain, namespace, name, entities, .. } = self;
        let place = format!("{domain}/{}/0/{entities}/{kind}/%/{}/{name}", session.zid(), mangled(namespace));
        let (topic, type_name, hash) = (mangled(topic), message.name, self.hash(message));
        let text = format!("@ros2_lv/{place}/{topic}/{type_name}/{hash}/{quality}");
        Ok((wire(self.session.liveliness().declare_token(&text).wait())?, text))
    }

    /// Subscribes to a topic; of messages that come while one is worked on, the newest is kept.
    ///
    /// # Errors
    /// When Zenoh refuses.
    pub fn subscribe_newest(&mut self, topic: &str, message: MessageType) -> Result<Subscription> {
        let (token, _) = self.announce("MS", topic, message, NEWEST)?;
        // Whatever the publisher's distribution says of the type's hash.
        let key = format!("{}/{}/{}/*", self.domain, &topic[1..], message.name);
        let subscriber = wire(self.session.declare_subscriber(key).with(RingChannel::new(1)).wait())?;
        Ok(Subscription { subscriber, _token: token })
    }

    /// Publishes on a topic.
    ///
    /// # Errors
    /// When Zenoh refuses.
    pub fn publish(&mut self, topic: &str, message: MessageType) -> Result<Publisher<'s>> {
        let (token, text) = self.announce("MP", topic, message, RELIABLE)?;
        let key = format!("{}/{}/{}/{}", self.domain, &topic[1..], message.name, self.hash(message));
        let publisher = wire(self.session.declare_publisher(key).congestion_control(CongestionControl::Drop).wait())?;
        Ok(Publisher { publisher, identity: xxh3_128(text.as_bytes()).to_le_bytes(), sent: 0, _token: token })
    }
}

/// A subscription that keeps the newest message.
pub struct Subscription {
    pub subscriber: Subscriber<RingChannelHandler<Sample>>,
    _token: LivelinessToken,
}

/// A publisher.
pub struct Publisher<'s> {
    publisher: zenoh::pubsub::Publisher<'s>,
    identity: [u8; 16],
    sent: i64,
    _token: LivelinessToken,
}

impl Publisher<'_> {
    /// Sends a message in its encoding.
    ///
    /// # Errors
    /// When Zenoh refuses.
    pub fn send(&mut self, message: Vec<u8>) -> Result<()> {
        self.sent += 1;
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i64;
        wire(self.publisher.put(message).attachment(attachment(self.sent, time, &self.identity)).wait())
    }
}

/// What rmw_zenoh sends along with a message: its number from 1, the time in nanoseconds since 1970, and who sends, a
/// sequence that begins with its length.
fn attachment(number: i64, time: i64, identity: &[u8; 16]) -> Vec<u8> {
    [&number.to_le_bytes()[..], &time.to_le_bytes(), &[16], identity].concat()
}

/// The number that a message's attachment gives it, and who sent it.
pub fn number_of(sample: &Sample) -> Option<(i64, [u8; 16])> {
    let bytes = sample.attachment()?.to_bytes();
    let (number, publisher) = (bytes.first_chunk()?, bytes.get(17..)?.first_chunk()?);
    Some((i64::from_le_bytes(*number), *publisher))
}

#[cfg(test)]
mod tests {
    use super::{attachment, check_name};

    #[test]
    fn attachments_are_those_of_the_zenoh_serializer() {
        let bytes = attachment(1, 0x0102, &[7; 16]);
        assert_eq!(bytes[..17], [1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 16]);
        assert_eq!((bytes.len(), &bytes[17..]), (33, &[7; 16][..]));
    }

    #[test]
    fn names_that_would_be_patterns_are_refused() {
        for name in ["camera/image_raw", "_a", "a1/b_2"] {
            check_name(name).unwrap();
        }
        for name in ["", "a//b", "a/**", "1a", "a b", "@x", "a/", "a%b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
