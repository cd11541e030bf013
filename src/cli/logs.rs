//! The output of an instance, wherever it runs.

use clap::Args;
use std::io::Write;

use super::connect::Client;
use crate::api::error::ApiError;
use crate::api::proto;
use crate::api::proto::service_service_client::ServiceServiceClient;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate logs web/0
  quorate logs db -f --tail 20")]
pub(super) struct LogsArgs {
    /// SERVICE with one copy, or SERVICE/ORDINAL
    slot: String,
    /// Print new output as it comes
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many lines; 0 prints all that is kept
    #[arg(long, default_value_t = 0)]
    tail: u32,
}

pub(super) async fn logs(client: &mut Client, args: &LogsArgs) -> Result<(), ApiError> {
    let request = proto::LogsRequest { slot: args.slot.clone(), tail: args.tail, follow: args.follow };
    let request = &request;
    let mut stream = client
        .call(|connection| async move { ServiceServiceClient::new(connection).logs(request.clone()).await })
        .await?;
    let mut stdout = std::io::stdout();
    while let Some(part) = stream.message().await.map_err(|status| ApiError::from_status(&status))? {
        match stdout.write_all(&part.chunk).and_then(|()| stdout.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(ApiError::failed(&error.into())),
        }
    }
    Ok(())
}
