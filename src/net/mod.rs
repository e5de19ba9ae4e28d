//! The kernel: batched datagrams and socket options. The only unsafe code is in `mmsg`.
