"""Working fakes of every port, shipped with the package so that anyone can test against them."""
