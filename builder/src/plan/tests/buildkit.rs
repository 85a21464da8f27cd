//! What BuildKit made of generated Dockerfiles, recorded: ours must come out the same.

use serde_json::{Value, json};

use super::*;

const CASES: &str = include_str!("../../../testdata/buildkit.jsonl");

/// Plans a case with images as the recording had them.
fn outcome(case: &Value) -> Result<Plan, Diagnostics> {
    let mut input = input(case["text"].as_str().unwrap());
    let args = case["args"].as_object().unwrap().iter();
    input.build_args = args
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect();
    let planner = Planner::new(input)?;
    let mut facts = Facts::new();
    loop {
        match planner.step(&facts)? {
            Progress::Done(plan) => return Ok(*plan),
            Progress::Need(needs) => {
                let known = needs.into_iter().map(|need| (need.reference, need.platform));
                facts.extend(known.map(|key| (key, image(&["PATH=/bin"]))));
            }
        }
    }
}

/// The history of the last stage and of those it is built on.
fn history_of(plan: &Plan) -> Vec<Value> {
    let mut chain = vec![last(plan)];
    while let Base::Stage(StageId(parent)) = chain[chain.len() - 1].base {
        chain.push(&plan.stages[parent]);
    }
    let steps = chain.iter().rev().flat_map(|stage| &stage.steps);
    steps
        .map(|step| json!([step.created_by, matches!(step.operation, Operation::Config)]))
        .collect()
}

#[test]
fn plans_are_buildkit_s() {
    let mut count = 0;
    for line in CASES.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let text = &case["text"];
        match outcome(&case) {
            Err(errors) => assert_eq!(case["error"], true, "{text}\n{errors}"),
            Ok(plan) => {
                assert_eq!(case["error"], Value::Null, "BuildKit refuses {text}");
                assert_eq!(json!(history_of(&plan)), case["history"], "{text}");
                let config = serde_json::to_value(&last(&plan).config).unwrap();
                assert_eq!(config, case["config"], "{text}");
            }
        }
        count += 1;
    }
    assert!(count > 200, "{count}");
}
