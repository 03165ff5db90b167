//! The C library's resolver.

use std::net::SocketAddr;

use ringloop_driver::resolve::{getaddrinfo, getnameinfo};
use socket2::SockAddr;

use crate::isolated::Test;

pub(crate) const TESTS: &[Test] = crate::tests![
    numbers_are_resolved_without_a_question_to_anybody,
    every_kind_of_socket_has_an_entry_when_none_is_asked_for,
    a_passive_host_is_the_wildcard_and_an_absent_one_the_loopback,
    an_unknown_name_says_so_in_the_c_librarys_words,
    a_name_with_a_zero_in_it_is_unknown,
    an_unknown_service_and_a_wrong_family_are_refused,
    the_canonical_name_comes_with_the_first_entry,
    an_address_has_numbers_for_names,
    a_name_that_must_be_had_and_is_not_there_is_an_error,
];

fn numbers_are_resolved_without_a_question_to_anybody() {
    for (host, expected) in [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80")] {
        let found =
            getaddrinfo(Some(host), Some("80"), 0, libc::SOCK_STREAM, 0, libc::AI_NUMERICHOST)
                .unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].socktype, found[0].protocol), (libc::SOCK_STREAM, libc::IPPROTO_TCP));
        assert_eq!(found[0].address.as_socket(), Some(expected.parse::<SocketAddr>().unwrap()));
    }
}

fn every_kind_of_socket_has_an_entry_when_none_is_asked_for() {
    let found = getaddrinfo(Some("127.0.0.1"), Some("80"), 0, 0, 0, 0).unwrap();
    let kinds: Vec<_> = found.iter().map(|entry| entry.socktype).collect();
    assert!(kinds.contains(&libc::SOCK_STREAM) && kinds.contains(&libc::SOCK_DGRAM), "{kinds:?}");
}

fn a_passive_host_is_the_wildcard_and_an_absent_one_the_loopback() {
    let address = |flags| {
        let found =
            getaddrinfo(None, Some("80"), libc::AF_INET, libc::SOCK_STREAM, 0, flags).unwrap();
        found[0].address.as_socket().unwrap()
    };
    assert_eq!(address(libc::AI_PASSIVE), ([0, 0, 0, 0], 80).into());
    assert_eq!(address(0), ([127, 0, 0, 1], 80).into());
}

fn an_unknown_name_says_so_in_the_c_librarys_words() {
    let error = getaddrinfo(Some("256.0.0.1"), None, 0, 0, 0, libc::AI_NUMERICHOST).unwrap_err();
    assert_eq!((error.code(), error.raw_os_error()), (libc::EAI_NONAME, None));
    assert_eq!(error.to_string(), "Name or service not known");
    assert_eq!(std::io::Error::from(error).to_string(), "Name or service not known");
}

fn a_name_with_a_zero_in_it_is_unknown() {
    for (host, service) in [(Some("a\0b"), None), (None, Some("8\x000"))] {
        let error = getaddrinfo(host, service, 0, 0, 0, 0).unwrap_err();
        assert_eq!(error.code(), libc::EAI_NONAME);
    }
}

fn an_unknown_service_and_a_wrong_family_are_refused() {
    let error = getaddrinfo(Some("127.0.0.1"), Some("no such service"), 0, libc::SOCK_STREAM, 0, 0);
    assert_eq!(error.unwrap_err().code(), libc::EAI_SERVICE);
    let error = getaddrinfo(Some("127.0.0.1"), None, 9999, 0, 0, 0).unwrap_err();
    assert_eq!(error.code(), libc::EAI_FAMILY);
}

fn the_canonical_name_comes_with_the_first_entry() {
    let flags = libc::AI_CANONNAME | libc::AI_NUMERICHOST;
    let found = getaddrinfo(Some("127.0.0.1"), None, 0, 0, 0, flags).unwrap();
    assert_eq!(found[0].canonname.as_deref(), Some("127.0.0.1"));
    assert!(found[1..].iter().all(|entry| entry.canonname.is_none()));
}

fn an_address_has_numbers_for_names() {
    let address = SockAddr::from("[::1]:4321".parse::<SocketAddr>().unwrap());
    let names = getnameinfo(&address, libc::NI_NUMERICHOST | libc::NI_NUMERICSERV).unwrap();
    assert_eq!(names, ("::1".to_owned(), "4321".to_owned()));
}

fn a_name_that_must_be_had_and_is_not_there_is_an_error() {
    let address = SockAddr::unix("/some/path").unwrap();
    let error = getnameinfo(&address, 0);
    // The C library has a name for a local address, or none for its family.
    assert!(error.is_ok() || error.unwrap_err().code() == libc::EAI_FAMILY);
    let nobody = SockAddr::from("192.0.2.1:1".parse::<SocketAddr>().unwrap());
    let flags = libc::NI_NAMEREQD | libc::NI_NUMERICSERV;
    assert!(getnameinfo(&nobody, flags).is_err());
}
