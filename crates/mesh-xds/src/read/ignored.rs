//! Extensions that are accepted because they have no effect here.
