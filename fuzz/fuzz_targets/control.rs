//! Whatever is written to the control socket: it is an order as it was meant, or an HTTP error, and the connection ends.
#![no_main]

use std::cell::OnceCell;

use fuzz::Site;
use libfuzzer_sys::fuzz_target;
use tidegate::admin::control::{self, Account, Order};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::spawn_local,
};

thread_local! {
    static SITE: Site = Site::alone();
    static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
}

fuzz_target!(|input: (u8, &[u8], bool)| {
    let (path, text, is_raw) = input;
    let request = if is_raw { text.to_vec() } else { post(path, text) };
    SITE.with(|site| {
        site.run(async {
            let socket = FOLDER.with(|folder| {
                let folder = folder.get_or_init(|| tempfile::tempdir_in("/dev/shm").expect("memory for a socket"));
                folder.path().join("control")
            });
            drop(std::fs::remove_file(&socket));
            let listener = UnixListener::bind(&socket).expect("the folder is ours");
            let (sender, mut orders) = mpsc::channel::<control::Request>(1);
            let server = spawn_local(control::serve(listener, sender));
            let carried_out = spawn_local(async move {
                while let Some(request) = orders.recv().await {
                    if let Order::Drain(server) | Order::Undrain(server) = &request.order {
                        assert!(server.len() <= 4096);
                    }
                    drop(request.reply.send(Ok(Account::new(vec!["done".to_owned()]))));
                }
            });
            let mut client = UnixStream::connect(&socket).await.expect("it accepts");
            drop(client.write_all(&request).await);
            drop(client.shutdown().await);
            let mut response = Vec::new();
            drop(client.read_to_end(&mut response).await);
            assert!(response.is_empty() || response.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&response));
            server.abort();
            carried_out.abort();
        });
    });
});

fn post(path: u8, body: &[u8]) -> Vec<u8> {
    let paths = ["reload", "drain", "undrain", "flush", "log", "no"];
    let path = paths[usize::from(path) % paths.len()];
    let length = body.len();
    let head =
        format!("POST /v1/{path} HTTP/1.1\r\nHost: tidegate\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}
