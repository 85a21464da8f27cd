//! Tests of the planner: what plans hold for which Dockerfiles.

mod buildkit;
mod mistakes;
mod operations;
mod stages;

use super::*;

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

fn input(text: &str) -> PlanInput {
    PlanInput {
        file_name: "Dockerfile".into(),
        text: text.into(),
        target: None,
        build_args: BTreeMap::new(),
        platform: platform("linux/amd64"),
        build_platform: platform("linux/amd64"),
    }
}

fn image(env: &[&str]) -> ImageConfig {
    let mut image = ImageConfig::default();
    image.config.env = env.iter().map(|entry| (*entry).to_owned()).collect();
    image
}

fn facts(images: &[(&str, ImageConfig)]) -> Facts {
    images
        .iter()
        .map(|(name, image)| (((*name).to_owned(), platform("linux/amd64")), image.clone()))
        .collect()
}

/// Plans with an image `base` that has a PATH.
#[track_caller]
fn plan_of(input: PlanInput) -> Plan {
    let facts = facts(&[("base", image(&["PATH=/bin"]))]);
    match Planner::new(input).and_then(|planner| planner.step(&facts)) {
        Ok(Progress::Done(plan)) => *plan,
        Ok(Progress::Need(needs)) => panic!("needs {needs:?}"),
        Err(errors) => panic!("{errors}"),
    }
}

#[track_caller]
fn plan(text: &str) -> Plan {
    plan_of(input(text))
}

#[track_caller]
fn error(text: &str) -> String {
    let facts = facts(&[("base", image(&["PATH=/bin"]))]);
    match Planner::new(input(text)).and_then(|planner| planner.step(&facts)) {
        Ok(progress) => panic!("no error but {progress:?}"),
        Err(errors) => errors.to_string(),
    }
}

fn last(plan: &Plan) -> &Stage {
    plan.stages.last().unwrap()
}

#[track_caller]
fn history(text: &str) -> Vec<String> {
    let plan = plan(text);
    last(&plan)
        .steps
        .iter()
        .map(|step| step.created_by.clone())
        .collect()
}

#[track_caller]
fn run(plan: &Plan) -> &Run {
    let operations = last(plan).steps.iter().rev();
    operations
        .filter_map(|step| match &step.operation {
            Operation::Run(run) => Some(run),
            _ => None,
        })
        .next()
        .unwrap()
}

#[track_caller]
fn copy(plan: &Plan) -> &Copy {
    let operations = last(plan).steps.iter().rev();
    operations
        .filter_map(|step| match &step.operation {
            Operation::Copy(copy) => Some(copy),
            _ => None,
        })
        .next()
        .unwrap()
}
