//! `sillage saga diagram`.

use super::resolve;
use crate::{
    commands::unique,
    failure::{Exit, Refusal},
    session::Session,
};
use anyhow::Result;
use serde::Serialize;
use sillage::{
    Text,
    admin::Admin,
    saga::{Progress, SagaShape},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Diagram {
    /// The saga, as `service/saga` or a part that no other has
    name: String,
    /// Another version than the newest
    #[arg(long, value_name = "N", conflicts_with = "instance")]
    version: Option<u32>,
    /// With what each step of this instance is at
    #[arg(long, value_name = "ID")]
    instance: Option<String>,
    /// What is drawn
    #[arg(long, value_enum, default_value_t = Form::Mermaid)]
    form: Form,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Form {
    /// A Mermaid flowchart, for documents
    Mermaid,
    /// An SVG picture
    Svg,
}

#[derive(Serialize)]
struct Drawn {
    saga: Text,
    #[serde(flatten)]
    shape: SagaShape,
    diagram: String,
}

impl Diagram {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        let saga = self.find(&admin).await?;
        let (shape, progress) = self.shape(&admin, &saga).await?;
        let diagram = match self.form {
            Form::Mermaid => shape.mermaid(&progress),
            Form::Svg => shape.svg(&progress),
        };
        let drawn = Drawn { saga, shape, diagram };
        session.out.one(&drawn, |drawn| drawn.diagram.clone())
    }

    async fn find(&self, admin: &Admin) -> Result<Text> {
        let mut names: Vec<_> = admin.saga_definitions().await?.into_iter().map(|d| d.0).collect();
        names.dedup();
        Ok(unique("definition of a saga", &self.name, names.iter(), "sillage saga list")?)
    }

    async fn shape(&self, admin: &Admin, saga: &Text) -> Result<(SagaShape, Vec<Progress>)> {
        if let Some(instance) = &self.instance {
            let detail = admin.saga(&resolve(admin, instance).await?).await?;
            return Ok((detail.shape, detail.steps.iter().map(|step| step.progress).collect()));
        }
        let definitions = admin.saga_definitions().await?;
        let of_it =
            definitions.into_iter().filter(|(name, _)| name == saga).map(|(_, shape)| shape);
        let wanted =
            |shape: &SagaShape| self.version.is_none_or(|version| version == shape.version);
        let shape = of_it.filter(wanted).last().ok_or_else(|| {
            let version = self.version.unwrap_or_default();
            Refusal::new(
                Exit::NotFound,
                format!("saga `{saga}` has no version {version}"),
                "leave `--version` away for the newest",
            )
        })?;
        Ok((shape, vec![]))
    }
}
