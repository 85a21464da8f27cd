//! `/api/v1` and what lies beside `/v2`: an ordinary axum router, since these paths have fixed shapes.

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::Response;

use super::{
    ApiError, AppState, Code, accounts, builds, cache, collection, contexts, health, images, jobs, openapi,
    token, verify,
};

pub(super) fn router(state: AppState) -> Router {
    let api = Router::new()
        .merge(accounts::routes())
        .merge(builds::routes())
        .merge(cache::routes())
        .merge(collection::routes())
        .merge(contexts::routes())
        .merge(images::routes())
        .merge(jobs::routes())
        .merge(openapi::routes())
        .merge(verify::routes())
        .fallback(not_found);
    Router::new()
        .merge(health::routes())
        .merge(token::routes())
        .nest("/api/v1", api)
        .route_layer(middleware::from_fn(note_path))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(state)
}

/// Notes in the answer which of the paths below was asked for.
async fn note_path(request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(path) = path {
        response.extensions_mut().insert(path);
    }
    response
}

async fn not_found() -> ApiError {
    ApiError::new(Code::NotFound, "there is nothing at this path")
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(Code::MethodNotAllowed, "this path has no such method")
}
