//! The server on monoio: a task per connection, and an owned buffer that goes to the kernel and comes back.

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::rc::Rc;

use bytes::Bytes;
use monoio::buf::IoBuf;
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, Split, Splitable};
use monoio::{IoUringDriver, RuntimeBuilder};
use peers_common::{
    Address, BUFFER, Check, Mailbox, Mode, Options, SMALL, SOURCE_BLOCKS, announce, end, options,
    source,
};

fn main() -> ExitCode {
    let modes = [Mode::Echo, Mode::Unix, Mode::Small, Mode::FanOut, Mode::Send, Mode::Receive];
    end(serve(&options(&modes)))
}

fn serve(options: &Options) -> io::Result<()> {
    let mut builder = RuntimeBuilder::<IoUringDriver>::new();
    if !options.defaults {
        let mut flags = io_uring::IoUring::builder();
        flags.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        builder = builder.with_entries(4096).uring_builder(flags);
    }
    let mut runtime = builder.build()?;
    runtime.block_on(async {
        let listener = options.address.listen()?;
        announce(&Address::of(&listener)?);
        let everyone = Everyone::default();
        if options.mode == Mode::Unix {
            let listener = monoio::net::UnixListener::from_std(UnixListener::from(listener))?;
            loop {
                let (stream, _) = listener.accept().await?;
                monoio::spawn(echo(stream));
            }
        }
        let listener = monoio::net::TcpListener::from_std(TcpListener::from(listener))?;
        loop {
            let (stream, _) = listener.accept().await?;
            match options.mode {
                Mode::Small => drop(monoio::spawn(small(stream))),
                Mode::FanOut => drop(monoio::spawn(fan_out(stream, Rc::clone(&everyone)))),
                Mode::Send => drop(monoio::spawn(send(stream))),
                Mode::Receive => drop(monoio::spawn(receive(stream, options.verify))),
                _ => drop(monoio::spawn(echo(stream))),
            }
        }
    })
}

async fn echo(mut stream: impl AsyncReadRent + AsyncWriteRent) {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let (result, read) = stream.read(buffer).await;
        if !matches!(result, Ok(1..)) {
            return;
        }
        let (result, written) = stream.write_all(read).await;
        if result.is_err() {
            return;
        }
        buffer = written;
        buffer.clear();
    }
}

async fn small(mut stream: impl AsyncReadRent + AsyncWriteRent) {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let (result, mut read) = stream.read(buffer).await;
        let Ok(count @ 1..) = result else { return };
        for start in (0..count).step_by(SMALL) {
            let piece = read.slice(start..count.min(start + SMALL));
            let (result, written) = stream.write_all(piece).await;
            if result.is_err() {
                return;
            }
            read = written.into_inner();
        }
        buffer = read;
        buffer.clear();
    }
}

type Everyone = Rc<RefCell<Vec<Rc<Mailbox<Bytes>>>>>;

/// Tells everybody what comes in here; a second task sends here what anybody tells.
async fn fan_out(
    stream: impl AsyncReadRent + AsyncWriteRent + Split + 'static,
    everyone: Everyone,
) {
    let (mut reader, mut writer) = stream.into_split();
    let told = Rc::new(Mailbox::default());
    everyone.borrow_mut().push(Rc::clone(&told));
    let mailbox = Rc::clone(&told);
    monoio::spawn(async move {
        while let Some(message) = mailbox.take().await {
            if writer.write_all(message).await.0.is_err() {
                return;
            }
        }
    });
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let (result, read) = reader.read(buffer).await;
        if !matches!(result, Ok(1..)) {
            break;
        }
        let message = Bytes::copy_from_slice(&read);
        everyone.borrow().iter().for_each(|other| other.put(message.clone()));
        buffer = read;
        buffer.clear();
    }
    told.close();
    everyone.borrow_mut().retain(|other| !Rc::ptr_eq(other, &told));
}

/// Sends for as long as somebody reads.
async fn send(mut stream: impl AsyncWriteRent) {
    let source = Bytes::from(source());
    for block in (0..SOURCE_BLOCKS).cycle() {
        let block = Bytes::slice(&source, block * BUFFER..(block + 1) * BUFFER);
        if stream.write_all(block).await.0.is_err() {
            return;
        }
    }
}

async fn receive(mut stream: impl AsyncReadRent + AsyncWriteRent, verify: bool) {
    let mut check = verify.then(Check::new);
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let (result, read) = stream.read(buffer).await;
        if !matches!(result, Ok(1..)) {
            break;
        }
        if let Some(check) = &mut check {
            check.see(&read);
        }
        buffer = read;
        buffer.clear();
    }
    if let Some(check) = check {
        let _ = stream.write_all(check.answer().to_vec()).await; // Who does not hear it says so.
    }
}
