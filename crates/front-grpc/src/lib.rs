//! gRPC services over the ports, with reflection, health and gRPC-web.
//!
//! The caller was authenticated before: an outer layer puts a [`Caller`] among the request's
//! extensions, or the [`Error`] with which it refuses it.

mod api_keys;
mod coordinator;
mod link;
mod router;

use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use quorate_ports::{BoxStream, Coordinator, ManageApiKeys, Router, TakePart};
use quorate_rpc::proto::coordinator::v1::session_coordinator_server::SessionCoordinatorServer;
use quorate_rpc::proto::operator::v1::api_keys_server::ApiKeysServer;
use quorate_rpc::proto::router::v1::message_router_server::MessageRouterServer;
use quorate_rpc::status::to_status;
use quorate_rpc::{DESCRIPTORS, MAX_MESSAGE};
use quorate_types::{Caller, Error, ErrorCode};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Extensions, Status};
use tonic_web::GrpcWebLayer;

/// What one port serves.
#[derive(Clone, Default)]
pub struct Services {
    /// The session coordinator.
    pub coordinator: Option<Arc<dyn Coordinator>>,
    /// The message router, and the coordinator to which it passes session calls.
    pub router: Option<(Arc<dyn Router>, Arc<dyn TakePart>)>,
    /// The server's API keys, where it asks for them.
    pub api_keys: Option<Arc<dyn ManageApiKeys>>,
    /// Ends what would keep a stopping server waiting.
    pub stop: CancellationToken,
}

/// The services as one router, with reflection (v1 and v1alpha) and health.
pub async fn routes(services: Services) -> axum::Router {
    let (health, health_service) = tonic_health::server::health_reporter();
    let mut routes = Routes::builder();
    routes.add_service(health_service);
    if let Ok(service) = reflection().build_v1() {
        routes.add_service(service);
    }
    if let Ok(service) = reflection().build_v1alpha() {
        routes.add_service(service);
    }
    if let Some(coordinator) = services.coordinator {
        let service = SessionCoordinatorServer::new(coordinator::CoordinatorService(coordinator))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        health.set_serving::<SessionCoordinatorServer<coordinator::CoordinatorService>>().await;
        routes.add_service(service);
    }
    if let Some((router, coordinator)) = services.router {
        let service = MessageRouterServer::new(router::RouterService {
            router,
            coordinator,
            stop: services.stop,
        })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
        health.set_serving::<MessageRouterServer<router::RouterService>>().await;
        routes.add_service(service);
    }
    if let Some(keys) = services.api_keys {
        health.set_serving::<ApiKeysServer<api_keys::ApiKeysService>>().await;
        routes.add_service(ApiKeysServer::new(api_keys::ApiKeysService(keys)));
    }
    routes.routes().into_axum_router().layer(GrpcWebLayer::new())
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Who calls, as the outer layer found out.
fn caller(extensions: &Extensions) -> Result<Caller, Status> {
    if let Some(error) = extensions.get::<Error>() {
        return Err(to_status(error.clone()));
    }
    extensions.get::<Caller>().cloned().ok_or_else(|| to_status(no_credentials()))
}

/// The refusal of a call without credentials: `unauthorized`, saying which are taken.
pub fn no_credentials() -> Error {
    Error::new(
        ErrorCode::Unauthorized,
        "this server requires credentials: metadata `authorization: Bearer <API key>`",
    )
}

type Outgoing<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A service's stream as the answer to a call, until the server stops.
fn outgoing<T: 'static, U: Send + 'static>(
    stream: BoxStream<Result<T, Error>>,
    convert: fn(T) -> U,
    stop: &CancellationToken,
) -> Outgoing<U> {
    let items = stream.map(move |item| item.map(convert).map_err(to_status));
    let stopped = async {
        let error = Error::unavailable("the service stops; connect again");
        Err(to_status(error))
    };
    let until = stop.clone().cancelled_owned();
    let stopping = stop.clone();
    let last = futures_util::stream::once(stopped)
        .filter(move |_| std::future::ready(stopping.is_cancelled()));
    Box::pin(items.take_until(until).chain(last))
}
