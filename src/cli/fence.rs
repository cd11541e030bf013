//! `quorate fence`: the deed, its dry run, a test of the devices, and the survivor's way without a quorum.

use clap::Args;
use serde_json::{Value, json};

use super::act::{done, write_call};
use super::connect::Client;
use super::table::{Table, span};
use super::wait::{Goal, WaitArgs};
use crate::api::error::{ApiError, ErrorCode};
use crate::api::proto;
use crate::api::proto::node_service_client::NodeServiceClient;
use crate::output::{Output, print, print_json};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate fence n2 --dry-run       what stops, what starts where, what waits, and what happens otherwise
  quorate fence n2 --test          ask its devices for the power state; nothing is switched
  quorate fence n2 --reason 'kernel stuck, pager 4711' --wait
  quorate fence n2 --without-quorum --confirm n2 --reason 'n1 is the survivor of two'")]
pub(super) struct FenceArgs {
    /// Which node
    node: String,
    /// Why, for the audit trail
    #[arg(long, required_unless_present_any = ["dry_run", "test"])]
    reason: Option<String>,
    /// Only say what would happen
    #[arg(long, conflicts_with_all = ["test", "without_quorum", "wait"])]
    dry_run: bool,
    /// Only ask its devices for the power state, from the node that is asked
    #[arg(long, conflicts_with_all = ["without_quorum", "wait"])]
    test: bool,
    /// As the survivor of a lost quorum: the node asked does the deed by itself, and writes it down
    #[arg(long, requires = "confirm", conflicts_with = "wait")]
    without_quorum: bool,
    /// The node's name once more, for what nobody can undo
    #[arg(long, value_name = "NODE")]
    confirm: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn fence(client: &mut Client, output: Output, args: FenceArgs) -> Result<(), ApiError> {
    if args.dry_run {
        return dry_run(client, output, args.node).await;
    }
    if args.test {
        return test(client, output, args.node).await;
    }
    let reason = args.reason.unwrap_or_default();
    if args.without_quorum {
        return without_quorum(client, output, args.node, args.confirm.unwrap_or_default(), reason).await;
    }
    let request =
        proto::FenceNodeRequest { node: args.node.clone(), reason, options: Some(client.write_options()) };
    let answer = write_call!(client, NodeServiceClient::fence_node, request.clone())?;
    done(client, output, &format!("fencing {}", args.node), answer, Some((&args.wait, Goal::None))).await
}

async fn dry_run(client: &mut Client, output: Output, node: String) -> Result<(), ApiError> {
    let request = proto::FenceNodeRequest { node: node.clone(), reason: String::new(), options: None };
    let plan = write_call!(client, NodeServiceClient::plan_fence, request.clone())?;
    let terms = plan.fence.clone().unwrap_or_default();
    if output == Output::Json {
        return print_json(&dry_json(&node, plan, &terms));
    }
    let mut text = match terms.allowed {
        true => format!("ALLOWED: {}\n", terms.allowance),
        false => format!("NOT ALLOWED: {}\n", terms.allowance),
    };
    let mut add = |title: &str, lines: Vec<String>, none: &str| {
        text.push_str(&format!("{title}\n"));
        let lines = if lines.is_empty() { vec![none.to_owned()] } else { lines };
        lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    };
    add("by", terms.by, "nothing");
    let loses = plan.loses.iter().map(|loss| {
        let mut words = vec![loss.priority.as_str()];
        words.extend(loss.exclusive.then_some("exclusive"));
        words.extend(loss.state.then_some("its state is on this node"));
        let to = match loss.to.as_str() {
            "" => format!("nowhere: {}", loss.because),
            to => format!("{to} ({})", loss.because),
        };
        format!("{} ({}) -> {to}", loss.slot, words.join(", "))
    });
    add(&format!("copies that lose {node}"), loses.collect(), "none");
    add("quorum", vec![plan.quorum], "");
    add("because", terms.because, "nothing is wrong with it");
    let evidence = terms.evidence.iter().map(|item| {
        let mark = if item.holds { 'x' } else { ' ' };
        let left = item.left_ms.map(|ms| format!(", in {}", span(ms))).unwrap_or_default();
        format!("[{mark}] {}: {}{left}", item.kind.replace('_', " "), item.detail)
    });
    add("evidence", evidence.collect(), "nothing waits for it");
    add("what would happen", plan.actions, "nothing");
    add("what would wait", plan.waiting, "nothing");
    add("if you do nothing", plan.otherwise, "nothing happens by itself");
    add("undo", vec![terms.undo], "");
    print(&text)
}

fn dry_json(node: &str, plan: proto::PlanResponse, terms: &proto::FenceTerms) -> Value {
    let loses = plan.loses.iter().map(|loss| {
        json!({
            "slot": loss.slot,
            "priority": loss.priority,
            "exclusive": loss.exclusive,
            "state": loss.state,
            "to": (!loss.to.is_empty()).then_some(&loss.to),
            "because": loss.because,
        })
    });
    let ahead = plan.ahead.iter().map(|line| json!({"after_ms": line.after_ms, "what": line.what}));
    let evidence = terms.evidence.iter().map(|item| {
        json!({"kind": item.kind, "holds": item.holds, "detail": item.detail, "left_ms": item.left_ms})
    });
    json!({
        "node": node,
        "revision": plan.revision,
        "allowed": terms.allowed,
        "allowance": terms.allowance,
        "by": terms.by,
        "loses": loses.collect::<Vec<_>>(),
        "actions": plan.actions,
        "waiting": plan.waiting,
        "quorum": plan.quorum,
        "because": terms.because,
        "evidence": evidence.collect::<Vec<_>>(),
        "otherwise": plan.otherwise,
        "ahead": ahead.collect::<Vec<_>>(),
        "undo": terms.undo,
    })
}

async fn test(client: &mut Client, output: Output, node: String) -> Result<(), ApiError> {
    let request = proto::TestFenceRequest { node: node.clone() };
    let answer = write_call!(client, NodeServiceClient::test_fence, request.clone())?;
    if output == Output::Json {
        let tests = answer.tests.iter().map(|test| {
            json!({
                "level": test.level + 1,
                "method": test.method,
                "power": (!test.power.is_empty()).then_some(&test.power),
                "error": (!test.error.is_empty()).then_some(&test.error),
                "took_ms": test.took_ms,
            })
        });
        print_json(&json!({"node": node, "by": answer.by, "tests": tests.collect::<Vec<_>>()}))?;
    } else {
        let mut table = Table::new(["LEVEL", "METHOD", "POWER", "TOOK", "PROBLEM"]);
        for test in &answer.tests {
            table.row([
                (test.level + 1).to_string(),
                test.method.clone(),
                test.power.clone(),
                span(test.took_ms),
                test.error.clone(),
            ]);
        }
        print(&table.text("no methods"))?;
    }
    // All methods of a level have to work for it to prove anything.
    let levels: std::collections::BTreeSet<u32> = answer.tests.iter().map(|test| test.level).collect();
    let whole = |level: &u32| {
        answer.tests.iter().filter(|test| test.level == *level).all(|test| test.error.is_empty())
    };
    if levels.iter().any(whole) {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::Failed,
        format!("no level of {node} can be relied on, as {} sees it", answer.by),
        "mend what is said of each method, and test again",
    ))
}

async fn without_quorum(
    client: &mut Client,
    output: Output,
    node: String,
    confirm: String,
    reason: String,
) -> Result<(), ApiError> {
    let request = proto::LoneFenceRequest {
        node: node.clone(),
        confirm,
        reason,
        options: Some(client.write_options()),
    };
    let answer = write_call!(client, NodeServiceClient::fence_without_quorum, request.clone())?;
    if output == Output::Json {
        print_json(&json!({
            "node": node,
            "proven": answer.proven,
            "said": answer.said,
            "next": answer.next,
        }))?;
    } else {
        let mut text = String::new();
        answer.said.iter().for_each(|line| text.push_str(&format!("{line}\n")));
        text.push_str(&format!("next: {}\n", answer.next));
        print(&text)?;
    }
    if answer.proven {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::Failed, format!("{node} is not proven off"), answer.next))
}
