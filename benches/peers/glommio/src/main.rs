//! The server on glommio: a task per connection on one executor.

use std::cell::RefCell;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::process::ExitCode;
use std::rc::Rc;

use futures_lite::io::split;
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream, UnixListener};
use glommio::{LocalExecutorBuilder, Placement, spawn_local};
use peers_common::{
    Address, BUFFER, Check, Mailbox, Mode, Options, SMALL, announce, end, options, source,
};

fn main() -> ExitCode {
    let modes = [Mode::Echo, Mode::Unix, Mode::Small, Mode::FanOut, Mode::Send, Mode::Receive];
    end(serve(options(&modes)))
}

fn serve(options: Options) -> glommio::Result<(), ()> {
    let mut builder = LocalExecutorBuilder::new(Placement::Unbound);
    if !options.defaults {
        builder = builder.ring_depth(4096).io_memory(10 << 20);
    }
    let executor = builder.make()?;
    executor.run(accept(options))
}

async fn accept(options: Options) -> glommio::Result<(), ()> {
    if let Address::Unix(name) = &options.address {
        // glommio takes no listener for a Unix socket from outside; its own queue is 128 long.
        let listener = UnixListener::bind(format!("\0{name}"))?;
        announce(&options.address);
        loop {
            let stream = listener.accept().await?;
            spawn_local(echo(stream)).detach();
        }
    }
    let everyone = Everyone::default();
    let listener = options.address.listen()?;
    announce(&Address::of(&listener)?);
    listener.set_nonblocking(false)?; // Its reactor waits for what would block.
    // The one way to give it a listener with the backlog and the congestion control of all servers here.
    // SAFETY: nobody else owns the descriptor, which is that of a listener.
    let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
    loop {
        let stream = listener.accept().await?;
        match options.mode {
            Mode::Small => spawn_local(small(stream)).detach(),
            Mode::FanOut => spawn_local(fan_out(stream, Rc::clone(&everyone))).detach(),
            Mode::Send => spawn_local(send(stream)).detach(),
            Mode::Receive => spawn_local(receive(stream, options.verify)).detach(),
            _ => spawn_local(echo(stream)).detach(),
        };
    }
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn small(mut stream: TcpStream) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        for piece in buffer[..count].chunks(SMALL) {
            if stream.write_all(piece).await.is_err() {
                return;
            }
        }
    }
}

type Everyone = Rc<RefCell<Vec<Rc<Mailbox<Rc<[u8]>>>>>>;

/// Tells everybody what comes in here; a second task sends here what anybody tells.
async fn fan_out(stream: TcpStream, everyone: Everyone) {
    let told = Rc::new(Mailbox::default());
    everyone.borrow_mut().push(Rc::clone(&told));
    let (mut reader, mut writer) = split(stream);
    let mailbox = Rc::clone(&told);
    spawn_local(async move {
        while let Some(message) = mailbox.take().await {
            if writer.write_all(&message).await.is_err() {
                return;
            }
        }
    })
    .detach();
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = reader.read(&mut buffer).await {
        let message: Rc<[u8]> = buffer[..count].into();
        everyone.borrow().iter().for_each(|other| other.put(Rc::clone(&message)));
    }
    told.close();
    everyone.borrow_mut().retain(|other| !Rc::ptr_eq(other, &told));
}

/// Sends for as long as somebody reads.
async fn send(mut stream: TcpStream) {
    let source = source();
    for block in source.chunks(BUFFER).cycle() {
        if stream.write_all(block).await.is_err() {
            return;
        }
    }
}

async fn receive(mut stream: TcpStream, verify: bool) {
    let mut check = verify.then(Check::new);
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if let Some(check) = &mut check {
            check.see(&buffer[..count]);
        }
    }
    if let Some(check) = check {
        let _ = stream.write_all(&check.answer()).await; // Who does not hear it says so.
    }
}
