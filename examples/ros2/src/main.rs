//! A ROS 2 node: answers a prompt about every image of a topic, with a text and with detections.

mod cdr;
mod graph;
mod messages;

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use gemmule::image::Size;
use gemmule::{GenerateOptions, Model, Session, SessionOptions, answer};
use zenoh::Wait;

use crate::graph::{Node, NodeName, Publisher};
use crate::messages::Image;

/// Answer a prompt about every image of a ROS 2 topic.
///
/// Subscribes to sensor_msgs/Image and publishes, for each image that it finds time for (the newest counts), the answer as
/// std_msgs/String and the objects in it as vision_msgs/Detection2DArray with the image's header. Speaks what rmw_zenoh speaks,
/// so that nodes with RMW_IMPLEMENTATION=rmw_zenoh_cpp see it as one of them; `rmw_zenohd` has to run, as for them. The
/// environment's ROS_DOMAIN_ID, ZENOH_SESSION_CONFIG_URI and ZENOH_CONFIG_OVERRIDE mean what they mean there.
///
/// Exit codes: 0 ended by a signal, 1 failure (a message says why), 2 wrong usage.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    /// What to ask about every image, such as "caption en" or "detect cup ; chair".
    #[arg(short, long)]
    prompt: String,
    /// GGUF file; without it the bundled easy-VQA model answers.
    #[arg(short, long, value_name = "MODEL.gguf")]
    model: Option<PathBuf>,
    /// The vision half, where MODEL.gguf holds the text half only.
    #[arg(long, value_name = "FILE", requires = "model")]
    mmproj: Option<PathBuf>,
    /// The topic of the images.
    #[arg(long, value_name = "TOPIC", default_value = "/camera/image_raw")]
    image: String,
    /// The topic of the answers.
    #[arg(long, value_name = "TOPIC", default_value = "~/answer")]
    answer: String,
    /// The topic of the detections.
    #[arg(long, value_name = "TOPIC", default_value = "~/detections")]
    detections: String,
    /// The node's name.
    #[arg(long, value_name = "NAME", default_value = "gemmule")]
    node_name: String,
    /// The node's namespace.
    #[arg(long, value_name = "NAME", default_value = "/")]
    namespace: String,
    /// The domain [default: the environment's ROS_DOMAIN_ID, else 0].
    #[arg(long, value_name = "N")]
    domain: Option<u32>,
    /// Name types without their hashes, as ROS 2 Humble does.
    #[arg(long)]
    humble: bool,
    /// Most tokens of an answer.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64)]
    max_tokens: usize,
    /// Time for each answer in milliseconds, from when its image's turn comes; one that takes longer is cut short.
    #[arg(long, value_name = "MS")]
    budget: Option<u64>,
    /// Threads [default: the physical cores this process may use].
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
}

/// What rmw_zenoh's session (its DEFAULT_RMW_ZENOH_SESSION_CONFIG.json5) needs to find others: a peer that does so through the
/// router of this machine.
const SESSION: [(&str, &str); 8] = [
    ("mode", r#""peer""#),
    ("connect/endpoints", r#"["tcp/localhost:7447"]"#),
    ("connect/timeout_ms", "{ router: -1, peer: -1, client: 0 }"),
    ("connect/exit_on_failure", "{ router: false, peer: false, client: true }"),
    ("listen/endpoints", r#"["tcp/localhost:0"]"#),
    ("scouting/multicast/enabled", "false"),
    ("scouting/gossip/target", r#"{ router: ["router", "peer"], peer: ["router"] }"#),
    ("timestamping/enabled", "{ router: true, peer: true, client: true }"),
];

/// A variable of the environment; an empty one is none.
fn environment(name: &str) -> Result<Option<String>> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    let text = value.map(|value| value.into_string().map_err(|_| anyhow::anyhow!("{name} is not UTF-8")));
    text.transpose()
}

/// Tells the one who started this; there may be nobody to read it.
fn tell(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "gemmule-ros2: {text}");
}

fn session_config() -> Result<zenoh::Config> {
    let failed = |what: &str, error: zenoh::Error| anyhow::anyhow!("{what}: {error}");
    let mut config = match std::env::var_os("ZENOH_SESSION_CONFIG_URI").filter(|path| !path.is_empty()) {
        Some(path) => zenoh::Config::from_file(path).map_err(|error| failed("ZENOH_SESSION_CONFIG_URI", error))?,
        None => {
            let mut config = zenoh::Config::default();
            for (key, value) in SESSION {
                config.insert_json5(key, value).map_err(|error| failed(key, error))?;
            }
            config
        }
    };
    let overrides = environment("ZENOH_CONFIG_OVERRIDE")?.unwrap_or_default();
    for pair in overrides.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) =
            pair.split_once('=').with_context(|| format!("ZENOH_CONFIG_OVERRIDE: '{pair}' is not KEY=VALUE"))?;
        let insert = config.insert_json5(key.trim(), value.trim());
        insert.map_err(|error| failed(&format!("ZENOH_CONFIG_OVERRIDE: {key}"), error))?;
    }
    Ok(config)
}

/// What an image becomes.
struct Answerer {
    model: Model,
    session: Session,
    prompt: String,
    max_tokens: usize,
    budget: Option<Duration>,
}

impl Answerer {
    /// The answer's text, and the objects in it as a message.
    fn answer(&mut self, image: &Image<'_>, came: Instant, stop: &AtomicBool) -> Result<(String, Vec<u8>)> {
        self.session.show(&[image.frame()?.to_picture()])?;
        let deadline = self.budget.map(|budget| came + budget);
        let options = GenerateOptions::new().max_tokens(self.max_tokens).probabilities(true).deadline(deadline);
        let mut stream = self.session.stream(&self.prompt, &options)?;
        while let Some(token) = stream.next().filter(|_| !stop.load(Ordering::Relaxed)) {
            token?;
        }
        let answer = stream.finish();
        let found = answer::detections(self.model.tokenizer()?, &answer.tokens)?;
        let detections = messages::detections(&image.header, &found.objects, Size::new(image.width, image.height));
        Ok((answer.text, detections))
    }
}

/// Looks at signals so often.
const WAKE: Duration = Duration::from_millis(100);
/// Who has found no one by then is told what may be missing.
const ALONE: Duration = Duration::from_secs(3);

impl Cli {
    fn execute(self) -> Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let handler = move || {
            // Whoever asks twice does not want to wait.
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(1);
            }
        };
        ctrlc::set_handler(handler).context("cannot watch for interrupts")?;
        let domain = match (self.domain, environment("ROS_DOMAIN_ID")?) {
            (Some(domain), _) => domain,
            (None, Some(text)) => text.parse().with_context(|| format!("ROS_DOMAIN_ID: '{text}' is no number"))?,
            (None, None) => 0,
        };

        let model = match (&self.model, &self.mmproj) {
            (Some(model), Some(mmproj)) => Model::open_pair(model, mmproj)?,
            (Some(model), None) => Model::open(model)?,
            (None, _) => Model::bundled()?,
        };
        let options = SessionOptions::new().threads(self.threads);
        let session = Session::new(&model, &options)?;

        let wire = zenoh::open(session_config()?).wait().map_err(|error| anyhow::anyhow!("Zenoh: {error}"))?;
        let mut node =
            Node::new(&wire, domain, NodeName { namespace: &self.namespace, name: &self.node_name }, !self.humble)?;
        let [image, answer, detections] =
            [&self.image, &self.answer, &self.detections].map(|topic| node.resolve(topic));
        let (image, answer, detections) = (image?, answer?, detections?);
        let answers = node.publish(&answer, messages::STRING)?;
        let objects = node.publish(&detections, messages::DETECTION_2D_ARRAY)?;
        let images = node.subscribe_newest(&image, messages::IMAGE)?;
        tell(format_args!("{image} is answered on {answer} and {detections}, domain {domain}"));

        let budget = self.budget.map(Duration::from_millis);
        let answerer = Answerer { model, session, prompt: self.prompt, max_tokens: self.max_tokens, budget };
        work(answerer, &wire, &images, &mut Publishers { answers, objects }, &stop)
    }
}

/// Where answers go.
struct Publishers<'s> {
    answers: Publisher<'s>,
    objects: Publisher<'s>,
}

/// Answers images until `stop` is set.
fn work(
    mut answerer: Answerer,
    wire: &zenoh::Session,
    images: &graph::Subscription,
    Publishers { answers, objects }: &mut Publishers<'_>,
    stop: &AtomicBool,
) -> Result<()> {
    let (mut answered, mut failed) = (0u64, 0u64);
    // The first and last number of each publisher.
    let mut numbers: HashMap<[u8; 16], (i64, i64)> = HashMap::new();
    let (mut told, start, mut checked) = (String::new(), Instant::now(), false);
    while !stop.load(Ordering::Relaxed) {
        let next = images.subscriber.recv_timeout(WAKE).map_err(|error| anyhow::anyhow!("Zenoh: {error}"))?;
        let Some(sample) = next else {
            if !checked && start.elapsed() > ALONE {
                checked = true;
                let (routers, peers) = (wire.info().routers_zid().wait(), wire.info().peers_zid().wait());
                if routers.chain(peers).next().is_none() {
                    tell("nobody is there yet; does rmw_zenohd run? (ros2 run rmw_zenoh_cpp rmw_zenohd)");
                }
            }
            continue;
        };
        let came = Instant::now();
        if let Some((number, publisher)) = graph::number_of(&sample) {
            numbers.entry(publisher).or_insert((number, number)).1 = number;
        }
        let message = sample.payload().to_bytes();
        match Image::read(&message).and_then(|image| answerer.answer(&image, came, stop)) {
            // The answer was cut.
            Ok(_) if stop.load(Ordering::Relaxed) => break,
            Ok((text, detections)) => {
                answers.send(messages::string(&text))?;
                objects.send(detections)?;
                answered += 1;
            }
            Err(error) => {
                failed += 1;
                // A camera that is set wrong sends the same error many times a second.
                let error = format!("{error:#}");
                if error != told {
                    tell(format_args!("image of {}: {error}", sample.key_expr()));
                    told = error;
                }
            }
        }
    }
    let sent = |(first, last): &(i64, i64)| last.saturating_sub(*first).max(0).saturating_add(1).cast_unsigned();
    let sent = numbers.values().map(sent).fold(0, u64::saturating_add);
    let dropped = sent.saturating_sub(answered + failed);
    tell(format_args!("{answered} images answered, {failed} failed, {dropped} dropped"));
    Ok(())
}

fn main() -> ExitCode {
    match Cli::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
