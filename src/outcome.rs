//! What a finished attempt means to breaker, balancer and retry: classified once.
