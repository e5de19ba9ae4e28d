//! Where a question goes: the longest matching domain, views.
