# The service is asked at its own address.
# shellcheck shell=bash

reach() { :; }

prepare_to_ask() { :; }
